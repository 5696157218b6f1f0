"use strict";
const form = document.getElementById("filter");
const words = document.getElementById("words");
const attention = document.getElementById("attention");
const shown = document.getElementById("shown");
const rows = Array.from(document.querySelectorAll("tr[data-filter]"), (row) => ({
  row, name: row.querySelector("th").textContent.toLowerCase(), marked: row.dataset.filter === "attention",
}));
function apply() {
  const text = words.value.trim().toLowerCase();
  let number = 0;
  for (const { row, name, marked } of rows) {
    row.hidden = !name.includes(text) || (attention.checked && !marked);
    number += row.hidden ? 0 : 1;
  }
  shown.textContent = number === rows.length ? "" : `${number} of ${rows.length} rows shown`;
}
form.addEventListener("submit", (event) => event.preventDefault());
form.addEventListener("input", apply);
form.addEventListener("reset", () => setTimeout(apply));
form.hidden = false;
apply();
