// Words and small elements. Texts of others go into elements as text, never as markup.

function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) {
    if (key.startsWith("on")) element.addEventListener(key.slice(2), value);
    else if (value !== null && value !== undefined && value !== false) element.setAttribute(key, value);
  }
  element.append(...children.filter((child) => child !== null && child !== undefined));
  return element;
}

const plural = (count, noun) => `${count} ${noun}${count === 1 ? "" : "s"}`;
const percent = (share) => `${Math.round(100 * share)}%`;
const tokenAt = (place) => held.tokens[place];

const signed = (value, text) => (value < 0 ? "−" : "+") + text;

function number(value) {
  const size = Math.abs(value);
  return signed(value, size >= 0.001 || size === 0 ? Number(size.toPrecision(3)) : size.toExponential(1));
}

// At most six characters, to stand in a node.
function shortNumber(value) {
  const size = Math.abs(value);
  return signed(value, size >= 0.01 || size === 0 ? Number(size.toPrecision(2)) : size.toExponential(0));
}

// A token, with spaces that can be seen and still be copied as spaces.
function tokenText(text) {
  const pieces = text.split(/( +)/).filter((piece) => piece);
  const atEdge = (index) => index === 0 || index === pieces.length - 1;
  const element = make("span", { class: "tok" });
  pieces.forEach((piece, index) => {
    element.append(piece.startsWith(" ") && atEdge(index) ? make("span", { class: "space" }, piece) : piece);
  });
  return element;
}

function nameOf(node) {
  if (node === target && node.kind === "target") return held.target_name;
  switch (node.kind) {
    case "feature": return node.feature;
    case "head": return `head ${node.layer}.${node.unit}`;
    case "mlp": return `MLP ${node.layer}`;
    case "embed": return tokenAt(node.token);
    default: return node.row === REST_ROW ? REST[node.kind] : `${node.kind} ${node.layer}`;
  }
}

const featureOf = (node) => held.features[node.feature] || {};

// A feature's label, if it is to be trusted; else its name.
function labelOf(box) {
  if (box.group) return box.group.name;
  const { label } = featureOf(box.node);
  return label && label.trusted ? label.text : nameOf(box.node);
}

function kindOf(box) {
  if (box.group) return "group";
  if (box.node === target) return "target";
  return filterOf(box.node);
}

const KIND_NAMES = { feature: "feature", head: "attention head", mlp: "MLP", embed: "embedding", rest: "remainder", target: "target", group: "group" };

// What a box does not say itself, for those who cannot see where it is and what it looks like.
function unseen(box) {
  const name = box.node && box.node.kind === "feature" && labelOf(box) !== nameOf(box.node) ? ` ${nameOf(box.node)}` : "";
  return `, ${KIND_NAMES[kindOf(box)]}${name} at token ${box.token} “${tokenAt(box.token).trim()}”`;
}
