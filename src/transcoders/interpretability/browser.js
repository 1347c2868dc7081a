// What a reader can do with features: search, sort, and look at one. Its data are in files beside
// the page. They are scripts, since a page that is opened from a folder may not fetch.

const index = JSON.parse(document.getElementById("index").textContent);
const [table, query, said, more, panel] = ["features", "query", "count", "more", "feature"]
    .map((id) => document.getElementById(id));
const COLUMNS = ["feature", "name", "score", "frequency", "largest", "peaks"];
const DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz", LEVELS = DIGITS.length - 1;
const STEP = 300;
const placeOf = new Map(index.feature.map((number, at) => [number, at]));
const searched = index.feature.map((number, at) =>
    ["", number, index.name[at], ...index.peaks[at].map((token) => token.trim()), ""].join("\n").toLowerCase());
let order = { column: COLUMNS.indexOf("score"), sign: -1 }, found = [], shown = STEP;

function make(tag, attributes, ...children) {
    const element = document.createElement(tag);
    for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
    element.append(...children);
    return element;
}

// Files on demand.

const shelf = new Map(), asked = new Map();

function shelve(name, content) {
    shelf.set(name, content);
}

function load(folder, name) {
    if (!asked.has(name))
        asked.set(name, new Promise((done, failed) => {
            const script = make("script", { src: `${folder}${name}.js` });
            script.onload = () => done(shelf.get(name));
            script.onerror = () => {
                asked.delete(name);
                failed(new Error(`${name}.js is not beside this page. Download the whole folder of features.`));
            };
            document.head.append(script);
        }));
    return asked.get(name);
}

function numbered(kind, number) {
    return `${kind}-${String(number).padStart(2, "0")}`;
}

async function dataOf(at) {
    const data = await load("", numbered("data", Math.floor(at / index.features_per_file)));
    const own = Object.entries(data).map(([name, column]) => [name, column[at % index.features_per_file]]);
    return Object.fromEntries(own);
}

async function rowOfText(row) {
    const rows = await load(index.text_folder, numbered("text", Math.floor(row / index.rows_per_file)));
    return rows[row % index.rows_per_file];
}

// The table.

function compare(a, b) {
    const [x, y] = [a, b].map((at) => index[COLUMNS[order.column]][at]);
    const missing = (value) => value === null || value.length === 0;
    if (missing(x) || missing(y)) return missing(x) - missing(y) || a - b; // always last
    const difference = typeof x === "number" ? x - y : compareTexts(String(x), String(y));
    return order.sign * difference || a - b;
}

function search() {
    const wanted = query.value.trim().toLowerCase();
    const whole = wanted.length > 2 && wanted.startsWith('"') && wanted.endsWith('"');
    const sought = whole ? `\n${wanted.slice(1, -1).trim()}\n` : wanted;
    found = [...index.feature.keys()].filter((at) => searched[at].includes(sought)).sort(compare);
    shown = STEP;
    fill();
}

function fill() {
    table.tBodies[0].replaceChildren(...found.slice(0, shown).map(rowOf));
    more.hidden = found.length <= shown;
    said.textContent = `${found.length} of ${index.feature.length} features`;
    mark();
}

function words(tokens) {
    return tokens.flatMap((token) => [make("span", { class: "word" }, token), " "]);
}

function rowOf(at) {
    const number = index.feature[at], score = index.score[at];
    return make("tr", { "data-feature": number },
        make("th", { scope: "row" }, make("a", { href: `#${number}` }, number)),
        make("td", { class: "text" }, index.name[at]),
        make("td", {}, score === null ? "" : score.toFixed(3)),
        make("td", {}, percent(index.frequency[at], 2)),
        make("td", {}, index.largest[at].toFixed(1)),
        make("td", { class: "text" }, ...words(index.peaks[at])));
}

function percent(share, digits = 0) {
    return `${(100 * share).toFixed(digits)}%`;
}

function mark() {
    for (const row of table.tBodies[0].rows)
        row.ariaCurrent = row.dataset.feature === location.hash.slice(1) ? "true" : null;
}

// One feature.

async function show() {
    const address = location.hash;
    mark();
    panel.hidden = !/^#\d+$/.test(address);
    if (panel.hidden) return;
    const number = Number(address.slice(1)), at = placeOf.get(number);
    const title = make("h2", { tabindex: "-1" }, `${index.prefix}[${number}]`);
    panel.replaceChildren(ways(at), title);
    title.focus();
    panel.scrollTop = 0;
    if (at === undefined) {
        panel.append(make("p", {}, "This feature is not here: it is not live on the text, or no circuit goes through it."));
        return;
    }
    panel.append(make("p", {}, ...nameOf(at)));
    try {
        const data = await dataOf(at);
        const texts = await Promise.all(data.examples.map(([, row]) => rowOfText(row)));
        if (location.hash === address) panel.append(...parts(at, data, texts));
    } catch (error) {
        panel.append(make("p", {}, error.message));
    }
}

function ways(at) {
    const place = found.indexOf(at), nav = make("nav", { "aria-label": "Features" });
    const link = (text, rel, other) => make("a", { rel, href: `#${index.feature[other]}` }, text);
    if (place > 0) nav.append(link("← before", "prev", found[place - 1]));
    if (place >= 0 && place + 1 < found.length) nav.append(link("after →", "next", found[place + 1]));
    nav.append(make("a", { href: "#features", rel: "up" }, "close"));
    return nav;
}

function nameOf(at) {
    const score = index.score[at], name = make("strong", {}, index.name[at]);
    if (index.name[at] !== "") return [name, score === null ? "" : ` (score ${score.toFixed(3)})`];
    return [score === null ? "No name was looked for." : `It has no name: no rule predicts it (the best scores ${score.toFixed(3)}).`];
}

function parts(at, data, texts) {
    const largest = index.largest[at].toFixed(2);
    const facts = data.mean === null ? "It is never active on the text."
        : `Active on ${percent(index.frequency[at], 3)} of the tokens of the text, with mean activation ${data.mean} there. The largest is ${largest}.`;
    const rows = data.examples.map((example, place) => ({ group: example[0], row: exampleRow(example, texts[place]) }));
    const groups = index.groups.flatMap((title, group) => {
        const own = rows.filter((each) => each.group === group).map((each) => each.row);
        return own.length ? [make("h3", {}, title), make("ul", {}, ...own)] : [];
    });
    const lists = Object.entries(index.lists).map(([name, title]) =>
        list(title, data[name], (token) => make("span", { class: "word" }, token)));
    const nearest = list("Nearest features, by the cosine of their decoder vectors", data.nearest, (number) =>
        placeOf.has(number) ? make("a", { href: `#${number}` }, number) : number);
    return [
        ...(data.why ? [make("p", {}, data.why)] : []),
        make("p", {}, facts),
        ...groups,
        ...(data.bars.length ? [make("h3", {}, "How strongly it is active"), histogram(data)] : []),
        make("div", { class: "lists" }, ...lists, nearest),
        ...index.absent.map((why) => make("p", { class: "from" }, why)),
    ];
}

function list(title, pairs, item) {
    const rows = pairs.map(([what, value]) => make("tr", {}, make("td", {}, value), make("td", { class: "text" }, item(what))));
    return make("section", {}, make("h3", {}, title), make("table", {}, make("tbody", {}, ...rows)));
}

// An example is a place in the text, and a digit for each token about it that is active.
function exampleRow([, row, position, before, digits], tokens) {
    const share = (at) => Math.max(DIGITS.indexOf(digits[at - position + before] ?? "0"), 0) / LEVELS;
    const token = (at) => {
        const part = make("span", { class: at === position ? "tok peak" : "tok" }, tokens[at]);
        if (share(at) === 0) return part;
        part.style.setProperty("--share", share(at));
        part.title = `${percent(share(at))} of its largest`;
        return part;
    };
    const between = (start, end) => Array.from({ length: end - start }, (_, at) => token(start + at));
    const start = Math.max(position - index.before, 1), end = Math.min(position + index.after + 1, tokens.length);
    const text = make("span", {}, ...between(start, end));
    const whole = make("button", { type: "button", class: "whole", "aria-label": `All of text ${row}` }, "…");
    whole.addEventListener("click", () => {
        text.replaceChildren(...between(1, tokens.length));
        whole.remove();
    });
    return make("li", {}, make("span", { class: "share" }, percent(share(position))), text, whole);
}

function histogram({ first_bin: first, bars }) {
    const NS = "http://www.w3.org/2000/svg", WIDTH = 18, HEIGHT = 70, highest = Math.max(...bars);
    const draw = (tag, attributes, text = "") => {
        const element = document.createElementNS(NS, tag);
        for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
        element.append(text);
        return element;
    };
    const edge = (bin) => Number(index.edges[first + bin].toPrecision(3));
    const wide = bars.length * WIDTH + 30;
    const picture = draw("svg", { viewBox: `0 0 ${wide} 92`, width: wide, height: 92, role: "img", "aria-label": "Histogram of activations" });
    bars.forEach((count, bin) => {
        const height = (HEIGHT * count) / highest;
        const bar = draw("rect", { x: bin * WIDTH + 1, y: HEIGHT + 2 - height, width: WIDTH - 2, height });
        bar.append(draw("title", {}, `${edge(bin)} to ${edge(bin + 1)}: ${count} tokens`));
        picture.append(bar);
        if (bin % 4 === 0) picture.append(draw("text", { x: bin * WIDTH, y: 88 }, String(edge(bin))));
    });
    return picture;
}

function close() {
    const link = document.querySelector("#features [aria-current] a");
    history.pushState(null, "", location.pathname + location.search);
    show();
    (link ?? query).focus();
}

if (table !== null) {
    sortButtons(table, (column, sign) => {
        order = { column, sign };
        search();
    });
    table.tHead.rows[0].cells[order.column].ariaSort = "descending";
    query.addEventListener("input", search);
    query.form.addEventListener("submit", (event) => {
        event.preventDefault();
        if (found.length) location.hash = index.feature[found[0]];
    });
    more.addEventListener("click", () => {
        shown += STEP;
        fill();
    });
    panel.addEventListener("click", (event) => {
        if (event.target.rel !== "up") return;
        event.preventDefault();
        close();
    });
    addEventListener("keydown", (event) => {
        if (panel.hidden || event.ctrlKey || event.altKey || event.metaKey || event.target === query) return;
        const rel = { ArrowLeft: "prev", ArrowRight: "next" }[event.key];
        if (event.key === "Escape") close();
        else if (rel !== undefined && panel.contains(event.target)) panel.querySelector(`a[rel="${rel}"]`)?.click();
    });
    addEventListener("hashchange", show);
    query.form.hidden = false;
    search();
    show();
}
