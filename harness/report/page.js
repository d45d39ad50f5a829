// -- terms: what they mean, on hover, focus and touch

const terms = read("term-data"), tip = document.getElementById("tip");

function explain(term) {
  tip.textContent = terms[term.dataset.term];
  tip.hidden = false;
  const { left, bottom, top } = term.getBoundingClientRect(), { width, height } = tip.getBoundingClientRect();
  const below = bottom + height + 12 < innerHeight;
  tip.style.left = `${Math.max(8, Math.min(left, innerWidth - width - 8))}px`;
  tip.style.top = `${below ? bottom + 6 : top - height - 6}px`;
  term.setAttribute("aria-describedby", "tip");
}
const hush = () => {
  tip.hidden = true;
  document.querySelector("[aria-describedby=tip]")?.removeAttribute("aria-describedby");
};
for (const event of ["pointerover", "focusin", "click"]) document.addEventListener(event, ({ target }) => {
  const term = target.closest?.(".term");
  if (term) explain(term);
  else if (event === "click") hush();
});
for (const event of ["pointerout", "focusout"]) document.addEventListener(event, ({ target, pointerType }) => {
  if (target.closest?.(".term") && pointerType !== "touch") hush();
});
addEventListener("scroll", hush, { passive: true });

// -- begin

if (rows.length) startTable();
startPlots();
follow();

