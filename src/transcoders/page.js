"use strict";
// What a reader can do with a page. Without this script the page shows all the same.

function numberIn(text) {
    const found = text.trim().replaceAll("−", "-").replaceAll(",", "").match(/^[+-]?\d*\.?\d+(e[+-]?\d+)?/i);
    return found ? Number(found[0]) : NaN;
}

function compareTexts(a, b) {
    return a.localeCompare(b, "en", { numeric: true });
}

// Empty cells stay last, whichever way the others go.
function sortRows(table, column, sign) {
    const body = table.tBodies[0];
    const rows = [...body.rows].map((row) => ({ row, text: row.cells[column].textContent.trim() }));
    const filled = rows.filter(({ text }) => text !== "");
    const numeric = filled.every(({ text }) => !Number.isNaN(numberIn(text)));
    const compare = numeric ? (a, b) => numberIn(a) - numberIn(b) : compareTexts;
    filled.sort((a, b) => sign * compare(a.text, b.text));
    body.append(...[...filled, ...rows.filter(({ text }) => text === "")].map(({ row }) => row));
}

// A click on a heading sorts, and another one turns the order round.
function sortButtons(table, sort) {
    const turned = { ascending: "descending", descending: "ascending" };
    const headings = [...table.tHead.rows[table.tHead.rows.length - 1].cells];
    headings.forEach((heading, column) => {
        if (heading.textContent.trim() === "") return;
        const button = document.createElement("button");
        button.type = "button";
        button.append(...heading.childNodes);
        heading.append(button);
        button.addEventListener("click", () => {
            const first = heading.dataset.first ?? "ascending";
            const order = heading.ariaSort === first ? turned[first] : first;
            for (const other of headings) other.removeAttribute("aria-sort");
            heading.ariaSort = order;
            sort(column, order === "ascending" ? 1 : -1);
        });
    });
}

function makeSortable(table) {
    const rows = [...(table.tBodies[0]?.rows ?? [])];
    const headings = [...(table.tHead?.rows[table.tHead.rows.length - 1]?.cells ?? [])];
    const plain = (row) => row.cells.length === headings.length
        && [...row.cells].every((cell) => cell.rowSpan === 1 && cell.colSpan === 1);
    if (rows.length < 2 || !rows.every(plain)) return;
    sortButtons(table, (column, sign) => sortRows(table, column, sign));
}

// The buttons of a table that can be filtered. Rows say which verdicts they hold.
function makeFilter(group) {
    const table = document.getElementById(group.dataset.table);
    const rows = [...table.tBodies[0].rows], said = group.querySelector("output");
    const buttons = [...group.querySelectorAll("button")];
    for (const button of buttons)
        button.addEventListener("click", () => {
            for (const each of buttons) each.ariaPressed = String(each === button);
            const wanted = button.dataset.verdict;
            for (const row of rows)
                row.hidden = wanted !== "" && !row.dataset.verdicts.split("|").includes(wanted);
            said.textContent = `${rows.filter((row) => !row.hidden).length} of ${rows.length} claims`;
        });
    group.hidden = false;
}

// A click shows the picture as large as it is; the browser itself closes a dialog on Escape.
function makeZoom(links) {
    const dialog = document.createElement("dialog"), close = document.createElement("button");
    const box = document.createElement("div"), picture = document.createElement("img");
    close.textContent = "Close";
    box.tabIndex = 0;
    box.append(picture);
    dialog.append(close, box);
    document.body.append(dialog);
    for (const each of [close, picture]) each.addEventListener("click", () => dialog.close());
    for (const link of links)
        link.addEventListener("click", (event) => {
            if (event.ctrlKey || event.metaKey || event.shiftKey) return;
            event.preventDefault();
            const { src, alt } = link.querySelector("img");
            Object.assign(picture, { src, alt });
            const whole = new Image(); // the page may show a part; alone, it has no more
            whole.onload = () => { if (picture.alt === alt) picture.src = whole.src; };
            whole.src = link.href;
            dialog.ariaLabel = box.ariaLabel = alt;
            dialog.showModal();
        });
    box.role = "group";
}

for (const table of document.querySelectorAll("main table:not([data-own-order])")) makeSortable(table);
for (const group of document.querySelectorAll("[data-table]")) makeFilter(group);
const pictures = document.querySelectorAll("a.zoom");
if (pictures.length > 0) makeZoom(pictures);

const all = document.getElementById("all-code");
const codes = [...document.querySelectorAll("details.code")];
if (all !== null && codes.length > 0) {
    all.hidden = false;
    all.addEventListener("click", () => {
        const open = all.ariaPressed === "false";
        all.ariaPressed = String(open);
        for (const code of codes) code.open = open;
    });
}
const contents = document.querySelector(".contents details");
if (contents !== null && matchMedia("(min-width: 70rem)").matches) contents.open = true;
