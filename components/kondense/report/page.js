"use strict";
document.documentElement.classList.add("scripted");

// A frame made from srcdoc resolves "#name" against its parent's address, so the page scrolls by itself.
for (const link of document.querySelectorAll("nav a")) {
  link.addEventListener("click", (event) => {
    event.preventDefault();
    document.getElementById(link.getAttribute("href").slice(1)).scrollIntoView();
  });
}

// Tabs: one panel at a time, arrow keys move between them.
for (const list of document.querySelectorAll("[role=tablist]")) {
  const tabs = [...list.querySelectorAll("[role=tab]")];
  const select = (chosen) => {
    for (const tab of tabs) {
      tab.setAttribute("aria-selected", tab === chosen);
      tab.tabIndex = tab === chosen ? 0 : -1;
      document.getElementById(tab.getAttribute("aria-controls")).hidden = tab !== chosen;
    }
  };
  select(tabs.find((tab) => tab.getAttribute("aria-selected") === "true") || tabs[0]);
  list.addEventListener("click", (event) => {
    const tab = event.target.closest("[role=tab]");
    if (tab) select(tab);
  });
  list.addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const next = tabs[(tabs.indexOf(event.target) + step + tabs.length) % tabs.length];
    select(next);
    next.focus();
  });
}

// Sorting: the first press shows the largest first, the next turns it round; cells without a value stay last.
for (const table of document.querySelectorAll("table.candidates")) {
  const body = table.tBodies[0];
  const headings = [...table.tHead.rows[1].cells];
  headings.forEach((heading, column) => {
    heading.querySelector("button").addEventListener("click", () => {
      const order = heading.getAttribute("aria-sort") === "descending" ? "ascending" : "descending";
      const sign = order === "ascending" ? 1 : -1;
      const value = (row) => row.cells[column].dataset.value;
      const compare = (a, b) => {
        if (column === 0) return -sign * value(a).localeCompare(value(b));
        if (!value(a) || !value(b)) return !value(a) - !value(b);
        return sign * (value(a) - value(b));
      };
      for (const other of headings) other.setAttribute("aria-sort", "none");
      heading.setAttribute("aria-sort", order);
      body.append(...[...body.rows].sort(compare));
    });
  });
}

// A mark and its row of the table light up together.
for (const source of document.querySelectorAll("[data-model]")) {
  const twins = [...document.querySelectorAll("[data-model]")].filter(
    (other) => other.dataset.model === source.dataset.model,
  );
  const light = (on) => twins.forEach((twin) => twin.classList.toggle("lit", on));
  for (const type of ["mouseenter", "focusin"]) source.addEventListener(type, () => light(true));
  for (const type of ["mouseleave", "focusout"]) source.addEventListener(type, () => light(false));
}

// Details of a mark, when it is pointed at or has the focus.
const tip = document.getElementById("tip");
const hide = () => { tip.hidden = true; };
for (const mark of document.querySelectorAll("[data-tip]")) {
  const show = () => {
    const [name, ...lines] = mark.dataset.tip.split("\n");
    const heading = document.createElement("b");
    heading.textContent = name;
    tip.replaceChildren(heading, ...lines.map((line) => {
      const text = document.createElement("div");
      text.textContent = line;
      return text;
    }));
    tip.hidden = false;
    const at = mark.getBoundingClientRect();
    const room = document.documentElement.clientWidth - tip.offsetWidth - 8;
    const above = at.top - tip.offsetHeight - 8;
    tip.style.left = `${Math.max(8, Math.min(at.left + at.width / 2 - tip.offsetWidth / 2, room))}px`;
    tip.style.top = `${above > 8 ? above : at.bottom + 8}px`;
  };
  for (const type of ["mouseenter", "focusin"]) mark.addEventListener(type, show);
  for (const type of ["mouseleave", "focusout"]) mark.addEventListener(type, hide);
}
addEventListener("scroll", hide, { passive: true });
addEventListener("keydown", (event) => { if (event.key === "Escape") hide(); });
