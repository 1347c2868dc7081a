"""Values in messages stay short."""

from transcoders.short_repr import short_repr


def test_a_value_of_any_size_is_written_short():
    nested = [1]
    for _ in range(100):
        nested = [nested, nested]
    values = (nested, 10**4000, "x" * 10**6, b"x" * 10**6, dict.fromkeys(range(1000)), object())
    assert all(len(short_repr(value)) < 300 for value in values)
    assert short_repr({"a": [1, "b"]}) == "{'a': [1, 'b']}"
