// The picture: a grid with a column for each token and a row for each layer, and edges below it.

const SVG = "http://www.w3.org/2000/svg";
const map = document.getElementById("map"), grid = document.getElementById("grid");
const LINES = 2; // of nodes in a cell, before a count stands for the others
const WIDEST = 7; // pixels, of the strongest edge
const isNarrow = () => window.innerWidth < 700;

const openCells = new Set();
let drawing = { boxes: [], edges: [], shown: new Set() };
const elementOf = new Map(); // of each box, by id; one count may stand for several boxes

function drawMap(view) {
  drawing = drawnBoxes(view);
  const rows = [...new Set(drawing.boxes.map((box) => box.row))].sort((a, b) => b - a);
  const cells = groupedBy(drawing.boxes, (box) => `${box.row}/${box.token}`);
  elementOf.clear();
  grid.replaceChildren(make("div", { class: "corner" }), ...held.tokens.map(tokenHeading));
  rows.forEach((row, index) => grid.append(
    make("div", { class: "band", style: `grid-row: ${index + 2}` }),
    make("div", { class: "row-name", style: `grid-row: ${index + 2}` }, held.rows[row]),
  ));
  const svg = document.createElementNS(SVG, "svg");
  svg.setAttribute("aria-hidden", "true"); // the panel lists the edges
  grid.append(svg);
  for (const [key, boxes] of cells) {
    const [row, token] = key.split("/").map(Number);
    const column = columnShape(token, rows, cells), index = rows.indexOf(row);
    const place = `grid-row: ${index + 2}; grid-column: ${token + 2}`;
    const shape = `--lanes: ${column.lanes}; --steps: ${column.steps}; --step: ${index % (column.steps + 1)}`;
    const room = row === REST_ROW ? Infinity : column.lanes * LINES;
    grid.append(cell(key, boxes.sort(byInfluence), room, `${place}; ${shape}`, view));
  }
  grid.style.gridTemplateColumns = `max-content repeat(${held.tokens.length}, max-content)`;
  drawEdges(svg);
}

// How many nodes stand side by side in a column, and how far its rows are shifted against each
// other, so that edges show between nodes.
function columnShape(token, rows, cells) {
  const used = rows.filter((row) => row !== REST_ROW && cells.has(`${row}/${token}`));
  const most = Math.max(1, ...used.map((row) => cells.get(`${row}/${token}`).length));
  return { lanes: Math.min(most, isNarrow() ? 2 : 3), steps: used.length > 3 ? 3 : 0 };
}

function groupedBy(items, keyOf) {
  const groups = new Map();
  for (const item of items) {
    const key = keyOf(item);
    groups.set(key, [...(groups.get(key) || []), item]);
  }
  return groups;
}

function tokenHeading(text, place) {
  return make("div", { class: "token", "data-token": place, style: `grid-column: ${place + 2}` }, tokenText(text), make("small", {}, `@${place}`));
}

// The nodes of one layer at one token, the most influential first.
function cell(key, boxes, room, style, view) {
  const isOpen = openCells.has(key), isFull = boxes.length > room;
  const shown = isFull && !isOpen ? boxes.slice(0, room - 1) : boxes;
  const element = make("div", { class: "cell", style }, ...shown.map((box) => nodeButton(box, view)));
  if (isFull) element.append(countButton(key, boxes.slice(shown.length), isOpen));
  return element;
}

function countButton(key, others, isOpen) {
  const text = isOpen ? "show fewer" : `+ ${others.length} more`;
  const element = make("button", { type: "button", class: "count", "aria-expanded": String(isOpen), "data-cell": key }, text);
  for (const box of others) elementOf.set(box.id, element);
  return element;
}

function nodeButton(box, view) {
  const { node } = box;
  const label = node && node.kind === "embed" ? tokenText(labelOf(box)) : labelOf(box);
  const canBeSelected = node !== target;
  const element = make(
    "button",
    {
      type: "button", "data-id": box.id, tabindex: -1, title: labelOf(box) + unseen(box),
      class: `node ${kindOf(box)} ${signOf(box.attribution)}${box.openGroup ? " member" : ""}`,
      "aria-pressed": canBeSelected ? String(view.selected.has(box.id)) : null,
    },
    make("span", { class: "label" }, label),
    make("span", { class: "number" }, shortNumber(box.attribution)),
    ...remarks(box).map((remark) => make("span", { class: "remark" }, remark)),
    make("span", { class: "unseen" }, unseen(box)),
  );
  elementOf.set(box.id, element);
  return element;
}

function remarks({ group, members, node, openGroup }) {
  if (group) return [plural(members.length, "node")];
  return [...(node.source >= 0 ? [reads(node)] : []), ...(openGroup ? [`in ${openGroup.name}`] : [])];
}

const reads = (node) => make("span", {}, "← ", node.source === node.token ? "own token" : tokenText(tokenAt(node.source)));

function drawEdges(svg) {
  svg.setAttribute("width", grid.scrollWidth);
  svg.setAttribute("height", grid.scrollHeight);
  const strongest = Math.max(...drawing.edges.map((edge) => Math.abs(edge.weight)), 1e-30);
  const ends = edgeEnds();
  for (const edge of [...drawing.edges].sort((a, b) => Math.abs(a.weight) - Math.abs(b.weight))) {
    const [x1, y1] = ends.get(edge).from, [x2, y2] = ends.get(edge).to;
    const bend = Math.max(Math.abs(y1 - y2) * 0.4, 16);
    edge.path = document.createElementNS(SVG, "path");
    edge.path.setAttribute("d", `M${x1},${y1} C${x1},${y1 - bend} ${x2},${y2 + bend} ${x2},${y2}`);
    edge.path.setAttribute("class", `edge ${signOf(edge.weight)}`);
    edge.path.style.strokeWidth = Math.max((WIDEST * Math.abs(edge.weight)) / strongest, 0.8);
    svg.append(edge.path);
  }
}

// Edges leave at the top and arrive at the bottom, side by side in the order of their other ends.
function edgeEnds() {
  const ends = new Map(drawing.edges.map((edge) => [edge, {}]));
  const middle = (box) => { const at = elementOf.get(box.id); return at.offsetLeft + at.offsetWidth / 2; };
  for (const [side, other] of [["from", "to"], ["to", "from"]]) {
    for (const [at, own] of groupedBy(drawing.edges, (edge) => elementOf.get(edge[side].id))) {
      own.sort((a, b) => middle(a[other]) - middle(b[other]));
      const y = at.offsetTop + (side === "to" ? at.offsetHeight : 0);
      own.forEach((edge, index) => {
        ends.get(edge)[side] = [at.offsetLeft + (at.offsetWidth * (index + 1)) / (own.length + 1), y];
      });
    }
  }
  return ends;
}

// Bring out what leads to a box and what it leads to: all of it, or only the next steps.
function emphasise(box, isWhole) {
  const causes = box ? (isWhole ? reach(box, "into") : new Set([box, ...box.into.map((edge) => edge.from)])) : null;
  const effects = box ? (isWhole ? reach(box, "out") : new Set([box, ...box.out.map((edge) => edge.to)])) : null;
  const isNear = ({ from, to }) => (causes.has(from) && causes.has(to) && (isWhole || to === box)) || (effects.has(from) && effects.has(to) && (isWhole || from === box));
  for (const edge of drawing.edges) {
    edge.path.classList.toggle("far", Boolean(box) && !isNear(edge));
    edge.path.classList.toggle("near", Boolean(box) && isNear(edge));
  }
  const near = new Set(box ? [...causes, ...effects].map((each) => elementOf.get(each.id)) : []);
  for (const element of new Set(elementOf.values())) element.classList.toggle("far", Boolean(box) && isWhole && !near.has(element));
  const read = box && box.node ? box.node.source : null;
  for (const heading of grid.querySelectorAll(".token")) {
    const place = Number(heading.dataset.token);
    heading.classList.toggle("here", Boolean(box) && place === box.token);
    heading.classList.toggle("read", place === read);
  }
}
