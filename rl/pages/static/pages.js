"use strict";
// Everything works without this: it adds keys, copying, the view of tokens, and curves that go on by themselves.
const one = (selector) => document.querySelector(selector);

one("#keys").addEventListener("click", () => {
  const help = one("#help");
  help.hidden = !help.hidden;
  one("#keys").setAttribute("aria-expanded", String(!help.hidden));
});

const showTokens = (shown) => {
  document.querySelectorAll(".tokens").forEach((tokens) => {
    tokens.hidden = !shown;
    tokens.closest(".turn").querySelector(".text").hidden = shown;
  });
  one("#show-tokens")?.setAttribute("aria-pressed", String(shown));
};
one("#show-tokens")?.addEventListener("click", (event) =>
  showTokens(event.currentTarget.getAttribute("aria-pressed") !== "true"));

one("#copy")?.addEventListener("click", async (event) => {
  const button = event.currentTarget;
  try {
    await navigator.clipboard.writeText(button.dataset.case);
    button.textContent = "Copied";
  } catch {
    window.prompt("Copy this line", button.dataset.case);
  }
});

document.querySelectorAll(".filters select").forEach((select) =>
  select.addEventListener("change", () => select.form.submit()));

let chosen = -1;
const rows = [...document.querySelectorAll("a.row")];
const choose = (step) => {
  if (!rows.length) return;
  chosen = Math.min(Math.max(chosen + step, 0), rows.length - 1);
  document.querySelectorAll("tr.chosen").forEach((row) => row.classList.remove("chosen"));
  rows[chosen].closest("tr").classList.add("chosen");
  rows[chosen].focus();
};

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || /^(INPUT|SELECT|TEXTAREA)$/.test(event.target.tagName)) return;
  const links = { j: "a[rel=next]", k: "a[rel=prev]", u: "a[rel=up]" };
  if (event.key === "/") { const find = one("#find"); if (find) { event.preventDefault(); find.focus(); } }
  else if (event.key === "t") one("#show-tokens")?.click();
  else if (event.key === "c") one("#copy")?.click();
  else if (rows.length && "jk".includes(event.key)) choose(event.key === "j" ? 1 : -1);
  else if (links[event.key]) one(links[event.key])?.click();
});

const live = one("#curves[data-live]");
if (live?.dataset.live) {
  setInterval(async () => {
    if (document.hidden) return;
    const answer = await fetch(live.dataset.live).catch(() => null);
    if (answer?.ok) live.innerHTML = await answer.text();
  }, 5000);
}
