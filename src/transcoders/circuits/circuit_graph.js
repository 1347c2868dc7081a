// What the file holds, and what of it a view shows. Nothing here touches the document.

const held = JSON.parse(document.getElementById("data").textContent);
const nodes = held.nodes;
const byId = new Map(nodes.map((node) => [node.id, node]));
const target = byId.get(held.target);
const edges = held.edges.map(([from, to, weight]) => ({ from: nodes[from], to: nodes[to], weight }));
const KINDS = ["feature", "head", "mlp", "embed", "rest"];
const REST = { bias: "biases", error: "errors", pruned: "left out" };
const REST_ROW = -1;
const isRest = (node) => node.kind in REST;
const byInfluence = (a, b) => b.influence - a.influence || (a.id < b.id ? -1 : 1);

for (const node of nodes) Object.assign(node, { into: [], out: [] });
for (const edge of edges) {
  edge.to.into.push(edge);
  edge.from.out.push(edge);
}
// Remainders complete the sums. They are never pruned, so they do not count as influence kept.
const parts = nodes.filter((node) => node !== target && !isRest(node)).sort(byInfluence);

const filterOf = (node) => (isRest(node) ? "rest" : node.kind);
const sum = (values) => values.reduce((total, value) => total + value, 0);
const signOf = (value) => (value < 0 ? "lowers" : "raises");

// The most influential nodes, up to a share of all influence; as prune_graph in graph.py.
function mostInfluential(share) {
  const kept = new Set([target]);
  let reached = 0;
  for (const node of parts) {
    if (share < 1 && reached >= share * held.influence) break;
    kept.add(node);
    reached += node.influence;
  }
  return reachingTarget(kept);
}

// A node that no longer reaches the target explains nothing.
function reachingTarget(kept) {
  const seen = new Set([target]), todo = [target];
  while (todo.length) {
    for (const { from } of todo.pop().into) {
      if (kept.has(from) && !seen.has(from)) {
        seen.add(from);
        todo.push(from);
      }
    }
  }
  return seen;
}

function shownNodes(view) {
  const passes = (node) => view.kinds.has(filterOf(node)) && view.signs.has(signOf(node.attribution));
  const shown = new Set([...mostInfluential(view.keep / 100)].filter((node) => node === target || passes(node)));
  const rest = nodes.filter((node) => isRest(node) && passes(node));
  const read = rest.filter((node) => node.out.some((edge) => shown.has(edge.to)));
  return new Set([...shown, ...read]);
}

// What gets drawn. A box is a node, or a closed group of nodes.
function drawnBoxes(view) {
  const shown = shownNodes(view), boxOf = new Map();
  for (const group of view.groups.filter((each) => !each.open)) {
    const members = group.nodes.map((id) => byId.get(id)).filter((node) => shown.has(node));
    if (members.length) {
      const box = groupBox(group, members);
      for (const node of members) boxOf.set(node, box);
    }
  }
  for (const node of shown) if (!boxOf.has(node)) boxOf.set(node, nodeBox(node, view));
  const boxes = [...new Set(boxOf.values())];
  const sums = summedEdges(boxOf, view);
  for (const box of boxes) {
    const bySize = (a, b) => Math.abs(b.weight) - Math.abs(a.weight);
    box.into = sums.filter((edge) => edge.to === box).sort(bySize);
    box.out = sums.filter((edge) => edge.from === box).sort(bySize);
  }
  return { shown, boxes, edges: sums };
}

function nodeBox(node, view) {
  const openGroup = view.groups.find((group) => group.open && group.nodes.includes(node.id));
  return { id: node.id, node, members: [node], openGroup, row: node.row, token: node.token, influence: node.influence, attribution: node.attribution };
}

// A group stands where its most influential node would. Members hand their attributions on to each
// other, so the group's own is only what leaves it.
function groupBox(group, members) {
  const [first] = [...members].sort(byInfluence);
  const leaving = members.flatMap((node) => node.out).filter((edge) => !members.includes(edge.to));
  return { id: `group/${group.name}`, group, members, row: first.row, token: first.token, influence: first.influence, attribution: sum(leaving.map((edge) => edge.weight)) };
}

function summedEdges(boxOf, view) {
  const sums = new Map();
  for (const edge of edges) {
    const from = boxOf.get(edge.from), to = boxOf.get(edge.to);
    if (!from || !to || from === to || !view.signs.has(signOf(edge.weight))) continue;
    const key = `${from.id} ${to.id}`;
    if (!sums.has(key)) sums.set(key, { from, to, weight: 0 });
    sums.get(key).weight += edge.weight;
  }
  return [...sums.values()];
}

// All boxes on the way from one along its edges: "into" leads to causes, "out" to effects.
function reach(box, direction) {
  const seen = new Set([box]), todo = [box];
  while (todo.length) {
    for (const edge of todo.pop()[direction]) {
      const next = direction === "into" ? edge.from : edge.to;
      if (!seen.has(next)) {
        seen.add(next);
        todo.push(next);
      }
    }
  }
  return seen;
}

// What a box reads, in all and by way of boxes that are not drawn.
function readBy(box) {
  const entering = box.members.flatMap((node) => node.into).filter((edge) => !box.members.includes(edge.from));
  const drawn = new Set(box.into.flatMap((edge) => edge.from.members));
  const missing = entering.filter((edge) => !drawn.has(edge.from));
  const rest = Object.keys(REST).map((kind) => [kind, missing.filter((edge) => edge.from.kind === kind)]);
  return { entering, rest, hidden: missing.filter((edge) => !isRest(edge.from)) };
}

// How much of what raises or lowers the target enters it from nodes that are shown.
function targetShares(shown) {
  return ["raises", "lowers"].map((sign) => {
    const of = target.into.filter((edge) => signOf(edge.weight) === sign);
    const all = sum(of.map((edge) => edge.weight));
    return { sign, all, drawn: sum(of.filter((edge) => shown.has(edge.from)).map((edge) => edge.weight)) };
  });
}
