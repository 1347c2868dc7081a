"use strict";
// A second click or a held key must not rate the item that has only just appeared.
const SETTLED_AFTER = 400;
document.addEventListener("submit", (event) => {
  const pressed = event.submitter;
  if (pressed.name === "verdict" && performance.now() < SETTLED_AFTER) event.preventDefault();
  if (pressed.value === "stay") sessionStorage.setItem(location.pathname, scrollY);
});
// After saving, the page is where it was.
scrollTo(0, sessionStorage.getItem(location.pathname) || 0);
sessionStorage.removeItem(location.pathname);
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  if (event.target.matches("textarea")) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  const wanted = document.querySelector(`[aria-keyshortcuts="${CSS.escape(event.key)}"]`);
  if (!wanted) return;
  event.preventDefault();
  if (wanted.matches("textarea")) wanted.focus();
  else wanted.click();
});
// Without this a tick is saved together with the next button that is pressed.
document.addEventListener("change", (event) => {
  const form = document.getElementById("rate");
  if (form && event.target.name === "context_free") form.requestSubmit(form.querySelector("[name=go]"));
});
