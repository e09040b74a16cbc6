"use strict";
(() => {
  const root = document.documentElement;
  const theme = document.getElementById("theme");
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  let chosen = null;
  const paint = () => {
    const now = chosen ?? (dark.matches ? "dark" : "light");
    root.dataset.theme = now;
    theme.textContent = now === "dark" ? "Light" : "Dark";
  };
  theme.addEventListener("click", () => {
    chosen = root.dataset.theme === "dark" ? "light" : "dark";
    paint();
  });
  dark.addEventListener("change", paint);
  paint();

  const veils = [...document.querySelectorAll("button.veil")];
  const show = (veil, open) => veil.setAttribute("aria-pressed", String(open));
  for (const veil of veils) {
    veil.addEventListener("click", () => show(veil, veil.getAttribute("aria-pressed") === "false"));
  }
  const all = document.getElementById("reveal");
  if (veils.length === 0) all.remove();
  all.addEventListener("click", () => {
    const open = all.getAttribute("aria-pressed") === "false";
    all.setAttribute("aria-pressed", String(open));
    all.textContent = open ? "Blur unsafe pictures" : "Show unsafe pictures";
    for (const veil of veils) show(veil, open);
  });
})();
