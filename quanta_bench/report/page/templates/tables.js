// Tables: sorting, filtering, choosing one, and what is said of a cell.

function sortKey(row, column) {
  const cell = row.cells[column];
  const text = cell.textContent.trim();
  if (cell.dataset.v !== undefined) return { number: Number(cell.dataset.v), text };
  return { number: null, text };
}

/** Numbers by size, then texts; what is empty stays last either way. */
function compare(one, other, sign) {
  const empty = (key) => key.number === null && (key.text === "–" || key.text === "");
  if (empty(one) || empty(other)) return empty(one) - empty(other);
  if (one.number !== null && other.number !== null) return sign * (one.number - other.number);
  if (one.number !== null || other.number !== null) return one.number !== null ? -1 : 1;
  return sign * one.text.localeCompare(other.text, "en", { numeric: true });
}

function sortBy(table, heading) {
  const headings = [...table.tHead.rows[0].cells];
  const column = headings.indexOf(heading);
  const first = heading.classList.contains("n") ? "descending" : "ascending";
  const other = first === "descending" ? "ascending" : "descending";
  const order = heading.getAttribute("aria-sort") === first ? other : first;
  for (const one of headings) one.setAttribute("aria-sort", one === heading ? order : "none");
  const sign = order === "ascending" ? 1 : -1;
  const body = table.tBodies[0];
  const keyed = [...body.rows].map((row) => [sortKey(row, column), row]);
  keyed.sort((one, two) => compare(one[0], two[0], sign));
  body.append(...keyed.map(([, row]) => row));
  say(`Sorted by ${heading.querySelector(".sort").textContent}, ${order}.`);
}

function filterRows(rows, filter) {
  let left = 0;
  for (const row of rows) {
    row.hidden = !holds(row.textContent, filter);
    left += !row.hidden;
  }
  say(`${left} of ${rows.length} rows.`);
}

function setUpSheets(panel) {
  const section = byId(panel);
  if (!section) return;
  const sheets = [...section.querySelectorAll(".sheet")];
  const pick = byId(`${panel}-pick`);
  const filter = byId(`${panel}-filter`);
  if (!filter) return;
  const choose = () => {
    for (const sheet of sheets) sheet.hidden = pick.value !== "" && sheet.dataset.sheet !== pick.value;
  };
  if (pick) {
    pick.addEventListener("change", choose);
    choose();
  }
  filter.addEventListener("input", () =>
    filterRows(section.querySelectorAll(".sheet tbody tr"), filter.value.trim()));
}

// --- what is said of a cell ---------------------------------------------------------------

const tip = byId("tip");

function showTip(cell) {
  tip.textContent = cell.dataset.tip.split("; ").join("\n");
  tip.hidden = false;
  const place = cell.getBoundingClientRect();
  const { offsetWidth: width, offsetHeight: height } = tip;
  const left = Math.max(6, Math.min(place.left, window.innerWidth - width - 6));
  const above = place.top - height - 6;
  tip.style.left = `${left}px`;
  tip.style.top = `${above > 6 ? above : place.bottom + 6}px`;
  cell.setAttribute("aria-describedby", "tip");
}

function hideTip(cell) {
  tip.hidden = true;
  if (cell) cell.removeAttribute("aria-describedby");
}

/** One stop of the Tab key a table; arrow keys go from cell to cell. */
function setUpCells(table) {
  const told = [...table.querySelectorAll("[title]")];
  for (const cell of told) {
    cell.dataset.tip = cell.title;
    cell.removeAttribute("title");
    if (cell.matches("td, th")) cell.tabIndex = -1;
  }
  const first = told.find((cell) => cell.matches("td, th"));
  if (first) first.tabIndex = 0;
  const focusable = (target) => target.closest && target.closest("td[data-tip], th[data-tip]");
  table.addEventListener("focusin", (event) => {
    const cell = focusable(event.target);
    if (!cell) return;
    for (const one of table.querySelectorAll('[tabindex="0"]')) one.tabIndex = -1;
    cell.tabIndex = 0;
    showTip(cell);
  });
  table.addEventListener("focusout", (event) => hideTip(focusable(event.target)));
  table.addEventListener("mouseover", (event) => {
    const cell = event.target.closest("[data-tip]");
    if (cell) showTip(cell);
  });
  table.addEventListener("mouseout", (event) => hideTip(event.target.closest("[data-tip]")));
  table.addEventListener("keydown", (event) => {
    const cell = focusable(event.target);
    if (event.key === "Escape") hideTip(cell);
    const step = { ArrowRight: [0, 1], ArrowLeft: [0, -1], ArrowDown: [1, 0], ArrowUp: [-1, 0] }[event.key];
    if (!cell || !step) return;
    event.preventDefault();
    const next = neighbour(cell, step);
    if (next) next.focus();
  });
}

function neighbour(cell, [down, right]) {
  const rows = [...cell.closest("tbody").rows].filter((row) => !row.hidden);
  let row = rows.indexOf(cell.parentElement) + down;
  let column = cell.cellIndex + right;
  while (rows[row] && rows[row].cells[column]) {
    const next = rows[row].cells[column];
    if (next.dataset.tip !== undefined) return next;
    row += down;
    column += right;
  }
  return null;
}

function setUpTables() {
  for (const table of document.querySelectorAll("table.grid")) {
    setUpCells(table);
    table.addEventListener("click", (event) => {
      const button = event.target.closest(".sort");
      if (button) sortBy(table, button.closest("th"));
    });
  }
  for (const panel of ["tables", "differences", "runs"]) setUpSheets(panel);
  const filter = byId("provenance-filter");
  if (filter) {
    const entries = document.querySelectorAll("#provenance-runs > .entry");
    filter.addEventListener("input", () => filterRows(entries, filter.value.trim()));
  }
  window.addEventListener("scroll", () => hideTip(null), { passive: true });
}
