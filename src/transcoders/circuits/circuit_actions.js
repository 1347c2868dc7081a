// What the reader does: controls, groups, selecting, picking, keys.

const control = (id) => document.getElementById(id);
let isSelecting = false;
let current = target.id; // the box that Tab leads to

// --- groups ---

function makeGroup(name) {
  const members = new Set(boxesSelected().flatMap((box) => box.members.map((node) => node.id)));
  if (!members.size) return;
  for (const group of view.groups) group.nodes = group.nodes.filter((id) => !members.has(id));
  view.groups = view.groups.filter((group) => group.nodes.length);
  const group = { name: freeName(name, view.groups), open: false, nodes: [...members] };
  view.groups.push(group);
  view.selected.clear();
  setSelecting(false);
  current = `group/${group.name}`;
  say(`The group “${group.name}” has ${plural(members.size, "node")}.`);
  redraw(true);
}

function setOpen(group, isOpen) {
  group.open = isOpen;
  view.picked = null;
  current = isOpen ? group.nodes.find((id) => drawing.shown.has(byId.get(id))) || target.id : `group/${group.name}`;
  redraw(true);
}

function removeGroup(group) {
  view.groups = view.groups.filter((each) => each !== group);
  view.picked = null;
  say(`The group “${group.name}” is gone; its nodes stay.`);
  redraw();
}

function saveGroups() {
  const text = JSON.stringify({ circuit: document.title, groups: view.groups }, null, 2);
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type: "application/json" })), download: "groups.json" });
  link.click();
  URL.revokeObjectURL(link.href);
}

async function loadGroups(file) {
  const given = parsed(await file.text()), wanted = given && given.groups;
  if (!Array.isArray(wanted)) {
    say(`${file.name} holds no groups: expected a file that “Save groups” wrote.`);
    return;
  }
  view.groups = cleanGroups(wanted);
  const count = (groups) => sum(groups.map((group) => (group && Array.isArray(group.nodes) ? group.nodes.length : 0)));
  const lost = count(wanted) - count(view.groups);
  say(`${plural(view.groups.length, "group")} loaded.${lost ? ` ${plural(lost, "node")} left out: not in this circuit, or in two groups.` : ""}`);
  redraw();
}

// --- selecting and picking ---

const boxById = (id) => drawing.boxes.find((box) => box.id === id) || null;
const boxesSelected = () => drawing.boxes.filter((box) => view.selected.has(box.id));

function toggleSelected(box) {
  if (box.node === target) {
    say("The target stays outside groups.");
    return;
  }
  if (!view.selected.delete(box.id)) view.selected.add(box.id);
  elementOf.get(box.id).setAttribute("aria-pressed", String(view.selected.has(box.id)));
  showSelection();
}

function clearSelection() {
  view.selected.clear();
  for (const button of grid.querySelectorAll('.node[aria-pressed="true"]')) button.setAttribute("aria-pressed", "false");
  showSelection();
}

function setSelecting(isOn) {
  isSelecting = isOn;
  control("select").setAttribute("aria-pressed", String(isOn));
  showSelection();
}

function showSelection() {
  const count = view.selected.size;
  control("naming").hidden = !isSelecting && !count;
  control("selected").textContent = count ? `${count} selected.` : "Select nodes, then name them.";
  control("make").disabled = !count;
}

// Show a box in the panel, or with null close it.
function pick(box, isFocused = false) {
  const before = view.picked;
  view.picked = box ? box.id : null;
  if (box) current = box.id;
  document.body.classList.toggle("open", Boolean(box));
  panel.hidden = !box;
  if (box) fillPanel(box, { pick, setOpen, remove: removeGroup });
  if (box) openCellOf(box);
  for (const button of grid.querySelectorAll(".node")) button.classList.toggle("picked", button.dataset.id === view.picked);
  emphasise(box, true);
  if (box ? isFocused : before) focusBox(box ? box.id : before);
  writeAddress();
}

// A box that a count stands for has no place of its own yet.
function openCellOf(box) {
  const element = elementOf.get(box.id);
  if (!element.dataset.cell) return;
  openCells.add(element.dataset.cell);
  redraw();
}

function focusBox(id) {
  const box = boxById(id);
  if (!box) return;
  openCellOf(box);
  makeCurrent(id);
  elementOf.get(id).focus({ preventScroll: true });
  bringIntoView(elementOf.get(id));
}

function bringIntoView(element) {
  if (visibleFrame().height < 200) map.scrollIntoView();
  const box = element.getBoundingClientRect(), frame = visibleFrame();
  const past = (low, high) => Math.max(high, 0) || -Math.max(low, 0);
  map.scrollLeft += past(frame.left + 90 - box.left, box.right - frame.right + 20);
  map.scrollTop += past(frame.top + 70 - box.top, box.bottom - frame.bottom + 20);
}

// The part of the picture that can be seen: on a narrow screen the panel covers some of it.
function visibleFrame() {
  const { left, right, top, bottom } = map.getBoundingClientRect();
  const end = isNarrow() && !panel.hidden ? panel.getBoundingClientRect().top : window.innerHeight;
  const seen = { left, right, top: Math.max(top, 0), bottom: Math.min(bottom, end) };
  return { ...seen, height: seen.bottom - seen.top };
}

function makeCurrent(id) {
  current = boxById(id) ? id : target.id;
  for (const button of grid.querySelectorAll(".node")) button.tabIndex = button.dataset.id === current ? 0 : -1;
}

// --- keys ---

function neighbour(box, key) {
  const strongest = (links, end) => (links.length ? links[0][end] : null);
  if (key === "ArrowUp") return strongest(box.out, "to");
  if (key === "ArrowDown") return strongest(box.into, "from");
  const place = (each) => elementOf.get(each.id).offsetLeft + elementOf.get(each.id).offsetTop / 1e5;
  const row = drawing.boxes.filter((each) => each.row === box.row).sort((a, b) => place(a) - place(b));
  return row[row.indexOf(box) + (key === "ArrowRight" ? 1 : -1)] || null;
}

function onMapKey(event) {
  const button = event.target.closest(".node");
  if (!button || event.ctrlKey || event.metaKey || event.altKey) return;
  const box = boxById(button.dataset.id);
  if (event.key.startsWith("Arrow")) {
    event.preventDefault();
    walkTo(neighbour(box, event.key));
  } else if (event.key === "Home") {
    event.preventDefault();
    walkTo(boxById(target.id));
  } else if (event.key.toLowerCase() === "s") toggleSelected(box);
  else if (event.key.toLowerCase() === "g" && view.selected.size) {
    event.preventDefault(); // the letter is not part of the name
    control("name").focus();
  }
}

// The panel follows if it is open.
function walkTo(box) {
  if (!box) return;
  if (view.picked) pick(box, true);
  else focusBox(box.id);
}

function onEscape() {
  if (view.picked) pick(null);
  else if (view.selected.size || isSelecting) {
    clearSelection();
    setSelecting(false);
  }
}

// --- drawing ---

function redraw(isFocused = false) {
  const had = grid.contains(document.activeElement);
  drawMap(view);
  for (const id of [...view.selected]) if (!boxById(id)) view.selected.delete(id);
  makeCurrent(current);
  showControls();
  showSelection();
  pick(boxById(view.picked));
  if (isFocused || had) focusBox(current);
}

function showControls() {
  const shown = [...drawing.shown].filter((node) => !isRest(node)).length, all = parts.length + 1;
  control("keep").value = view.keep;
  control("keep").setAttribute("aria-valuetext", `${view.keep}% of influence, ${shown} of ${all} nodes`);
  const unheld = held.found - all;
  control("count").textContent = `${view.keep}%: ${shown} of ${all} nodes${unheld > 0 ? ` (${unheld} weaker ones are not in this file)` : ""}`;
  for (const box of document.querySelectorAll("#controls input[data-kind]")) box.checked = view.kinds.has(box.dataset.kind);
  for (const box of document.querySelectorAll("#controls input[data-sign]")) box.checked = view.signs.has(box.dataset.sign);
  const shares = targetShares(drawing.shown), largest = Math.max(...shares.map(({ all: total }) => Math.abs(total)), 1e-30);
  control("shares").replaceChildren(...shares.map((share) => shareBar(share, largest)));
  control("groups").replaceChildren(...view.groups.map(groupItem));
  control("save").disabled = !view.groups.length;
}

function shareBar({ sign, all, drawn }, largest) {
  const share = all ? drawn / all : 0;
  const bar = make("span", { class: `bar ${sign}`, style: `width: ${(100 * Math.abs(all)) / largest}%` }, make("span", { style: `width: ${100 * share}%` }));
  const text = all ? `${shortNumber(all)}: ${percent(share)} shown, ${percent(1 - share)} hidden` : "nothing";
  return make("div", { class: "share" }, make("span", { class: "share-text" }, make("b", {}, sign === "raises" ? "Raises the target " : "Lowers the target "), text), make("span", { class: "rail" }, bar));
}

function groupItem(group) {
  const button = (text, act) => make("button", { type: "button", "aria-label": `${text} ${group.name}`, onclick: act }, text);
  return make("li", {}, make("span", {}, `${group.name} (${group.nodes.length})`), button(group.open ? "Close" : "Open", () => setOpen(group, !group.open)), button("Delete", () => removeGroup(group)));
}

function say(text) {
  control("said").textContent = text;
}

// --- start ---

function listen() {
  control("keep").addEventListener("input", (event) => { view.keep = Number(event.target.value); redraw(); });
  control("controls").addEventListener("change", (event) => {
    const { kind, sign } = event.target.dataset;
    const [set, value] = kind ? [view.kinds, kind] : [view.signs, sign];
    if (!value) return;
    if (event.target.checked) set.add(value);
    else set.delete(value);
    redraw();
  });
  control("controls").addEventListener("submit", (event) => event.preventDefault());
  control("select").addEventListener("click", () => setSelecting(!isSelecting));
  control("naming").addEventListener("submit", (event) => { event.preventDefault(); makeGroup(control("name").value); control("name").value = ""; });
  control("clear").addEventListener("click", () => { clearSelection(); setSelecting(false); });
  control("save").addEventListener("click", saveGroups);
  control("load").addEventListener("change", (event) => { if (event.target.files.length) loadGroups(event.target.files[0]); event.target.value = ""; });
  listenToMap();
  window.addEventListener("hashchange", () => { readAddress(); redraw(); });
  window.addEventListener("resize", () => { control("more").open ||= !isNarrow(); redraw(); });
  // Paper holds no slider: it gets the tables, and the picture as wide as the sheet.
  window.addEventListener("beforeprint", () => { control("tables").open = true; grid.style.zoom = Math.min(1, 680 / grid.scrollWidth); });
  window.addEventListener("afterprint", () => { grid.style.zoom = ""; });
}

function listenToMap() {
  grid.addEventListener("click", (event) => {
    const button = event.target.closest("button");
    if (!button) return;
    if (button.dataset.cell) toggleCell(button.dataset.cell);
    else onNodeClick(boxById(button.dataset.id), event);
  });
  grid.addEventListener("keydown", onMapKey);
  document.addEventListener("keydown", (event) => { if (event.key === "Escape") onEscape(); });
  for (const [kind, isOver] of [["pointerover", true], ["pointerout", false], ["focusin", true], ["focusout", false]]) {
    grid.addEventListener(kind, (event) => {
      const button = event.target.closest(".node");
      if (button && !view.picked) emphasise(isOver ? boxById(button.dataset.id) : null, false);
      if (button && kind === "focusin") makeCurrent(button.dataset.id);
    });
  }
}

function onNodeClick(box, event) {
  if (event.shiftKey || isSelecting) toggleSelected(box);
  else pick(view.picked === box.id ? null : box, true);
}

function toggleCell(key) {
  if (!openCells.delete(key)) openCells.add(key);
  redraw();
}

document.getElementById("app").hidden = false;
control("tables").open = false; // open for those without a script
control("more").open = !isNarrow();
readAddress();
listen();
redraw();
map.scrollLeft = elementOf.get(current).closest(".cell").offsetLeft - grid.querySelector(".corner").offsetWidth;
