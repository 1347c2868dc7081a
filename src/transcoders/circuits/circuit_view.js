// What the reader sees, and the address that says so. Groups are a part of it.

const SIGNS = ["raises", "lowers"];
const START = { keep: 80, kinds: KINDS.filter((kind) => kind !== "rest"), signs: SIGNS };
const view = { keep: START.keep, kinds: new Set(START.kinds), signs: new Set(SIGNS), groups: [], selected: new Set(), picked: null };
let addressTimer = 0;

function readAddress() {
  const given = new URLSearchParams(location.hash.slice(1));
  const among = (name, allowed, usual) => new Set(given.has(name) ? allowed.filter((each) => given.get(name).split(",").includes(each)) : usual);
  const keep = Number(given.get("keep") || START.keep);
  view.keep = keep >= 5 && keep <= 100 ? keep : START.keep;
  view.kinds = among("kinds", KINDS, START.kinds);
  view.signs = among("signs", SIGNS, SIGNS);
  view.groups = cleanGroups(given.getAll("group").map(parsed));
  view.picked = given.get("node");
}

function parsed(text) {
  try {
    return JSON.parse(text);
  } catch {
    return null;
  }
}

function writeAddress() {
  const given = new URLSearchParams();
  if (view.keep !== START.keep) given.set("keep", view.keep);
  if (KINDS.some((kind) => view.kinds.has(kind) !== START.kinds.includes(kind))) given.set("kinds", [...view.kinds].join(","));
  if (view.signs.size < SIGNS.length) given.set("signs", [...view.signs].join(","));
  for (const group of view.groups) given.append("group", JSON.stringify(group));
  if (view.picked) given.set("node", view.picked);
  // Browsers refuse an address that changes with every step of a slider.
  clearTimeout(addressTimer);
  addressTimer = setTimeout(() => showAddress(given), 150);
}

function showAddress(given) {
  const text = given.toString().replaceAll("%2C", ",").replaceAll("%2F", "/"); // to be read
  history.replaceState(null, "", text ? `#${text}` : location.pathname + location.search);
}

// Groups come from addresses and files, so nothing about them is taken on trust.
function cleanGroups(given) {
  const groups = [], taken = new Set([target.id]);
  for (const each of Array.isArray(given) ? given : []) {
    if (!each || !Array.isArray(each.nodes)) continue;
    const own = [...new Set(each.nodes)].filter((id) => byId.has(id) && !taken.has(id));
    for (const id of own) taken.add(id);
    if (own.length) groups.push({ name: freeName(String(each.name || "group"), groups), open: Boolean(each.open), nodes: own });
  }
  return groups;
}

function freeName(wanted, groups) {
  const name = wanted.trim().slice(0, 60) || "group";
  const isTaken = (text) => groups.some((group) => group.name === text);
  if (!isTaken(name)) return name;
  let count = 2;
  while (isTaken(`${name} ${count}`)) count += 1;
  return `${name} ${count}`;
}
