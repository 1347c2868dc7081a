"""The same code of MKL on every processor that has AVX2.

PyTorch multiplies matrices with MKL. MKL asks a function of its own whether the processor is
Intel's, and multiplies with other code if not, which rounds differently and is slower. A library
that is loaded first may define a function of that name, and then MKL calls that one: a known
workaround (https://danieldk.eu/Posts/2020-08-31-MKL-Zen.html). Such a library is made here, byte by
byte, because a user may have no compiler.
"""

import ctypes
import os
import platform
import struct

QUESTION = b"mkl_serv_intel_cpu_true"
YES = bytes.fromhex("b801000000 c3 9090")  # mov eax, 1; ret; and two bytes that fill a word


def answer_as_intel() -> None:
    """Make MKL take its code for Intel's processors. Call it before PyTorch is loaded.

    It does nothing on an Intel processor, where the answer is the same, and is left out where there
    is no Linux or no x86-64 processor.
    """
    if platform.system() != "Linux" or platform.machine() != "x86_64":
        return
    file = os.memfd_create(QUESTION.decode())  # in memory: nothing to clean up
    try:
        os.write(file, shared_library(QUESTION, YES))
        ctypes.CDLL(f"/proc/self/fd/{file}", mode=ctypes.RTLD_GLOBAL)
    finally:
        os.close(file)


def shared_library(name: bytes, code: bytes) -> bytes:
    """An ELF file that defines one function.

    Numbers are those of the ELF-64 format (``man 5 elf``).

    Args:
        name: of the function.
        code: instructions of x86-64, in whole words of 8 bytes.
    """
    names = b"\0" + name + b"\0"
    at_code = 64 + 3 * 56  # behind the file's header and those of three segments
    at_symbols = at_code + len(code)
    at_table = at_symbols + 2 * 24
    at_dynamic = at_table + 6 * 4
    at_names = at_dynamic + 6 * 16
    end = at_names + len(names)
    return b"".join(
        [
            struct.pack("<4s3B9x", b"\x7fELF", 2, 1, 1),  # 64 bits, little-endian
            # A shared library for x86-64, its segments' headers at 64.
            struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, 3, 0, 0, 0),
            # Segments: the whole file, to read and execute; the dynamic section; a stack that
            # cannot be executed.
            struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, end, end, 4096),
            struct.pack("<IIQQQQQQ", 2, 4, *[at_dynamic] * 3, 6 * 16, 6 * 16, 8),
            struct.pack("<IIQQQQQQ", 0x6474E551, 6, 0, 0, 0, 0, 0, 16),
            code,
            # Symbols: an empty one, which has to be there, and a global function.
            bytes(24),
            struct.pack("<IBBHQQ", 1, 0x12, 0, 1, at_code, len(code)),
            # A hash table with one chain, which holds symbol 1.
            struct.pack("<6I", 1, 2, 1, 0, 0, 0),
            # The dynamic section: where table, names and symbols are; how long the names are, and
            # one symbol; its end.
            struct.pack("<6Q", 4, at_table, 5, at_names, 6, at_symbols),
            struct.pack("<6Q", 10, len(names), 11, 24, 0, 0),
            names,
        ]
    )
