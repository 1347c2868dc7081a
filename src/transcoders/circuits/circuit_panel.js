// The panel: everything that is known of one box.

const REST_TEXTS = { bias: "biases", error: "errors of transcoders", pruned: "left out by the search" };

const panel = document.getElementById("panel");

function fillPanel(box, actions) {
  const close = make("button", { type: "button", onclick: () => actions.pick(null) }, "Close");
  const heading = make("h2", { id: "panel-title" }, box.node && box.node.kind === "embed" ? tokenText(labelOf(box)) : labelOf(box));
  panel.replaceChildren(make("div", { class: "panel-head" }, heading, close), ...(box.group ? groupParts(box, actions) : nodeParts(box)),
    ...linkParts(box, actions), ...(box.node ? noteParts(box.node) : []));
  panel.scrollTop = 0;
}

function nodeParts(box) {
  const { node } = box;
  const known = featureOf(node), kind = node === target ? `the target${node.kind === "feature" ? ", a feature" : ""}` : KIND_NAMES[kindOf(box)];
  const name = labelOf(box) === nameOf(node) ? kind : `${kind} ${nameOf(node)}`;
  const link = known.link ? [" · ", make("a", { href: known.link }, "all that is known of it")] : [];
  return [make("p", { class: "kind" }, name, ...link), ...(known.label ? labelParts(known.label) : []), factsTable(nodeFacts(node))];
}

function nodeFacts(node) {
  const facts = [["attribution", number(node.attribution)], ["influence", percent(node.influence)]];
  if (node.activation !== undefined) facts.push(["activation", Number(node.activation.toPrecision(3)).toString()]);
  facts.push([node.kind === "head" ? "writes at" : "token", placeText(node.token)]);
  if (node.source >= 0) facts.push(["reads", placeText(node.source)]);
  return facts;
}

const placeText = (place) => make("span", {}, tokenText(tokenAt(place)), ` @${place}`);

function labelParts(label) {
  const parts = [make("p", {}, make("b", {}, "Label: "), creditOf(label))];
  if (label.examples.length) {
    const title = label.trusted ? "Clearest examples" : "Clearest example";
    const shown = label.trusted ? label.examples : label.examples.slice(0, 1);
    parts.push(make("h3", {}, title), make("ul", { class: "examples" }, ...shown.map((text) => make("li", {}, tokenText(text)))));
  }
  return parts;
}

function creditOf(label) {
  if (label.by !== "rule") return `written by ${label.by}: ${label.why}`;
  if (!label.text) return "none, since the feature is active on too few tokens.";
  const trust = label.trusted ? "" : ` “${label.text}” predicts the feature too badly to stand for it.`;
  return `balanced accuracy ${label.score.toFixed(3)} on other examples; found by the rule “${label.rule}”.${trust}`;
}

function factsTable(facts) {
  return make("table", {}, make("tbody", {}, ...facts.map(([name, value]) => make("tr", {}, make("th", { scope: "row" }, name), make("td", {}, value)))));
}

function groupParts(box, actions) {
  const { group } = box, missing = group.nodes.length - box.members.length;
  const members = make("ul", { class: "members" }, ...box.members.map((node) => make("li", {}, `${labelOf({ node })} @${node.token}`)));
  return [
    make("p", { class: "kind" }, `a group of ${plural(group.nodes.length, "node")}${missing ? `, ${missing} of them not drawn` : ""}. Its edges are sums.`),
    make("p", { class: "actions" },
      make("button", { type: "button", onclick: () => actions.setOpen(group, true) }, "Open the group"),
      make("button", { type: "button", onclick: () => actions.remove(group) }, "Delete the group")),
    factsTable([["attribution that leaves it", number(box.attribution)]]),
    make("h3", {}, "Members"), members,
  ];
}

function linkParts(box, actions) {
  const parts = [];
  const { entering, rest, hidden } = readBy(box);
  if (entering.length) {
    const others = [...rest.map(([kind, missing]) => [REST_TEXTS[kind], missing]), [`${plural(hidden.length, "node")} not drawn`, hidden]];
    const rows = others.filter(([, missing]) => missing.length).map(([name, missing]) => [name, sum(missing.map((edge) => edge.weight))]);
    parts.push(make("h3", {}, "Reads (its causes)"), linkTable(box.into, "from", actions, rows, sum(entering.map((edge) => edge.weight))));
  }
  if (box.out.length) parts.push(make("h3", {}, "Is read by (its effects)"), linkTable(box.out, "to", actions));
  return parts;
}

function linkTable(links, end, actions, others = [], total = null) {
  const rows = links.map((edge) => {
    const other = edge[end];
    const go = make("button", { type: "button", class: "link", onclick: () => actions.pick(other, true) }, labelOf(other), placeNote(other));
    return make("tr", {}, make("td", {}, go), make("td", { class: `n ${signOf(edge.weight)}` }, number(edge.weight)));
  });
  const plain = (name, weight, kind) => make("tr", { class: kind }, make("td", {}, name), make("td", { class: "n" }, number(weight)));
  rows.push(...others.map(([name, weight]) => plain(name, weight, "other")));
  if (total !== null) rows.push(plain("all together", total, "total"));
  return make("table", { class: "links" }, make("tbody", {}, ...rows));
}

function placeNote(box) {
  if (box.group) return ` (${plural(box.members.length, "node")})`;
  return box.node.source >= 0 ? ` @${box.node.source} → @${box.token}` : ` @${box.token}`;
}

function noteParts(node) {
  return (featureOf(node).lists || []).filter(([, rows]) => rows.length).flatMap(([title, rows]) => [
    make("h3", {}, title),
    make("table", { class: "links" }, make("tbody", {}, ...rows.map(([text, value]) => make("tr", {}, make("td", {}, tokenText(text)), make("td", { class: "n" }, value))))),
  ]);
}
