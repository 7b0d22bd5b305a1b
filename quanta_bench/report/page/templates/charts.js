// Charts, by plotly. It reads some markup in labels, so every text of the data is escaped for it.

const PALETTE = {
  light: ["#1f5fa8", "#c2571a", "#2b7d4f", "#7a4fa3", "#a3263f", "#5f5f5f", "#0d8a95", "#8a6d00", "#c0448f", "#3d3d8f"],
  dark: ["#7fb2ee", "#f0975a", "#6cc795", "#bb97e3", "#ee7c91", "#b4b8be", "#5cccd6", "#d8b84a", "#ee8fc7", "#9c9cf0"],
};
const SYMBOLS = ["circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star", "pentagon", "hexagram", "bowtie", "hourglass"];
const DASHES = ["solid", "dash", "dot", "dashdot", "longdash"];
const CONFIG = {
  displaylogo: false, responsive: true,
  modeBarButtonsToRemove: ["select2d", "lasso2d", "autoScale2d"],
  toImageButtonOptions: { format: "svg", filename: "quanta-bench" },
};

/** A text that plotly shows as it is: its labels know tags and entities. */
function inert(text) {
  return String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
}

function look(number) {
  const palette = PALETTE[dark.matches && !printing ? "dark" : "light"];
  return { color: palette[number % palette.length], symbol: SYMBOLS[number % SYMBOLS.length] };
}

function layout(x, y) {
  const { paper, ink, soft, grid, rule } = colours();
  const axis = { gridcolor: grid, linecolor: rule, zeroline: false, ticks: "outside", tickcolor: rule, automargin: true };
  const narrow = window.innerWidth <= 640 && !printing;
  return {
    paper_bgcolor: paper, plot_bgcolor: paper,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: ink },
    margin: { l: 56, r: 12, t: 10, b: 46 },
    xaxis: { ...axis, ...x, title: { text: inert(x.title), font: { color: soft } } },
    yaxis: { ...axis, ...y, title: { text: inert(y.title), font: { color: soft } } },
    hoverlabel: { bgcolor: paper, bordercolor: rule, font: { color: ink }, align: "left" },
    legend: narrow ? { orientation: "h", yref: "container", y: 0, yanchor: "bottom", font: { size: 11 } } : { font: { size: 12 } },
    hovermode: "closest",
    showlegend: true,
  };
}

/** An axis of costs; a logarithmic one over less than two decades has ticks between them. */
function costAxis(title, log, values) {
  if (!log) return { title, type: "linear", exponentformat: "SI", rangemode: "tozero" };
  const wide = Math.max(...values) > 100 * Math.min(...values);
  return { title, type: "log", dtick: wide ? 1 : "D2", exponentformat: "SI", minor: { ticks: "outside" } };
}

function numbers(name, caption, headings, rows) {
  const head = make("tr", {}, ...headings.map((text) => make("th", { scope: "col" }, text)));
  const lines = rows.map((cells) => make("tr", {}, ...cells.map((cell, number) =>
    number ? make("td", { class: typeof cell === "number" ? "n" : null }, typeof cell === "number" ? shown(cell) : cell ?? "–")
      : make("th", { scope: "row" }, cell))));
  byId(`${name}-numbers`).replaceChildren(make("table", {}, make("caption", {}, caption), make("thead", {}, head), make("tbody", {}, ...lines)));
}

function plot(name, traces, shape, caption) {
  const size = printing ? { width: 900, height: 400, autosize: false } : { autosize: true };
  Plotly.react(byId(`${name}-plot`), traces, { ...shape, ...size }, CONFIG);
  byId(`${name}-caption`).textContent = caption;
}

function methodsOf(rows) {
  return [...new Set(rows.map((row) => row.method))];
}

const hover = (text) => ({ hovertemplate: "%{text}<extra></extra>", text });

// --- score against cost -------------------------------------------------------------------

function tableOf(select) {
  return DATA.tables[Number(byId(select).value)];
}

function fillMeasures(select, table) {
  fillSelect(byId(select), table.measures.map((one) => [one.key, one.title]), true);
}

function within(values) {
  const low = Math.min(...values), high = Math.max(...values);
  const room = Math.max(0.18 * (high - low), 0.02 * Math.abs(high), 0.5);
  return [low - room, high + room];
}

function drawTrade() {
  const table = tableOf("trade-table");
  fillMeasures("trade-measure", table);
  const measure = table.measures.find((one) => one.key === byId("trade-measure").value);
  if (!measure) return;
  const cost = byId("trade-cost").value;
  const score = (row) => (row.values[measure.key] || [null])[0];
  const placed = table.rows.filter((row) => row.costs[cost] !== null && score(row) !== null);
  const levels = table.rows.filter((row) => row.costs.parameters === null && score(row) !== null);
  const front = table.fronts[measure.key][cost].map((number) => table.rows[number]);
  const best = new Set(front);
  const traces = [];
  if (front.length > 1) {
    traces.push({
      x: front.map((row) => row.costs[cost]), y: front.map(score), mode: "lines", name: "Pareto front",
      line: { shape: "hv", dash: "dot", width: 1.5, color: colours().soft }, hoverinfo: "skip",
    });
  }
  methodsOf(placed).forEach((method, number) => {
    const rows = placed.filter((row) => row.method === method);
    const { color, symbol } = look(number);
    traces.push({
      x: rows.map((row) => row.costs[cost]), y: rows.map(score), mode: "markers", name: inert(rows[0].title),
      marker: { color, symbol, size: 11, line: { width: rows.map((row) => (best.has(row) ? 2 : 0)), color: colours().ink } },
      error_y: { type: "data", visible: byId("trade-intervals").checked, array: rows.map((row) => row.values[measure.key][1] ?? 0), color, thickness: 1, width: 3 },
      ...hover(rows.map((row) => tradeHover(row, measure, cost, best.has(row)))),
    });
  });
  const xs = placed.map((row) => row.costs[cost]);
  levels.forEach((row, number) => {
    traces.push({
      x: xs.length ? [Math.min(...xs), Math.max(...xs)] : [1, 10], y: [score(row), score(row)], mode: "lines", name: inert(row.label),
      line: { width: 1, dash: ["dash", "dashdot", "longdash", "longdashdot"][number % 4], color: colours().soft },
      ...hover(Array(2).fill(`${inert(row.label)}: ${shown(score(row))}`)),
    });
  });
  const values = [...placed, ...levels].map(score);
  const better = measure.lower ? " (less is better)" : "";
  const shape = layout(costAxis(DATA.costs[cost], byId("trade-log").checked, xs), { title: `${measure.title}${better}`, range: values.length ? within(values) : undefined });
  const unknown = table.rows.filter((row) => row.costs.parameters !== null && row.costs[cost] === null);
  const missing = unknown.length ? ` ${DATA.costs[cost]} unknown of: ${unknown.map((row) => row.label).join(", ")}.` : "";
  plot("trade", traces, shape, `${table.title}. Dotted: rows that no other row beats in both, outlined. Level lines train nothing. The axis fits the means; intervals may leave it.${missing}`);
  numbers("trade", table.title, ["Row", "Method", DATA.costs[cost], measure.title, "± (95 %)", "On the front"],
    [...placed, ...levels].map((row) => [row.label, row.title, row.costs[cost], score(row), row.values[measure.key][1], best.has(row) ? "yes" : "no"]));
}

function tradeHover(row, measure, cost, best) {
  const [mean, margin] = row.values[measure.key];
  const interval = margin === null ? "" : ` ± ${shown(margin, 3)}`;
  return [
    `<b>${inert(row.label)}</b>${row.stale ? " † stale" : ""}`, `${inert(measure.title)}: ${shown(mean)}${interval}`,
    `${inert(DATA.costs[cost])}: ${shown(row.costs[cost])}`, `seeds: ${row.seeds.join(", ") || "–"}`, best ? "on the Pareto front" : "",
  ].filter(Boolean).join("<br>");
}

// --- learning rates -----------------------------------------------------------------------

function drawRates() {
  const source = DATA.rates[Number(byId("rates-source").value)];
  const key = byId("rates-measure").value;
  const title = { score: "Score", ratio: "Perplexity of running text, times the base's" }[key];
  const traces = [];
  source.curves.forEach((curve, number) => {
    const trials = curve.trials.filter((trial) => trial[key] !== null);
    if (!trials.length) return;
    const { color, symbol } = look(number);
    traces.push({
      x: trials.map((trial) => trial.rate), y: trials.map((trial) => trial[key]), mode: "lines+markers", name: inert(curve.label),
      line: { color, width: 1.5, dash: DASHES[Math.floor(number / PALETTE.light.length) % DASHES.length] },
      marker: { color, symbol, opacity: 1, size: trials.map((trial) => (trial.chosen ? 14 : 8)), line: { width: trials.map((trial) => (trial.chosen ? 2 : 0)), color: colours().ink } },
      ...hover(trials.map((trial) => `<b>${inert(curve.label)}</b><br>rate ${trial.rate}<br>${title}: ${shown(trial[key])}` +
        `${key === "score" && trial.error !== null ? `<br>standard error ${shown(trial.error, 3)}` : ""}${trial.chosen ? "<br>chosen" : ""}`)),
    });
  });
  const type = key === "ratio" ? "log" : "linear";
  const shape = layout({ title: "Learning rate", type: "log", exponentformat: "power", dtick: 1 }, { title, type });
  const none = traces.length ? "" : " Nothing of this was measured.";
  plot("rates", traces, shape, `${source.title}. Large and outlined: the rate that was chosen.${none}`);
  numbers("rates", source.title, ["Row", "Rate", "Score", "Standard error", "Perplexity ratio", "Chosen"],
    source.curves.flatMap((curve) => curve.trials.map((trial) => [curve.label, String(trial.rate), trial.score, trial.error, trial.ratio, trial.chosen ? "yes" : "no"])));
}

// --- learning curves ----------------------------------------------------------------------

const CURVES = {
  loss: ["Validation loss", (run) => run.validations.map(([step, , loss]) => [step, loss])],
  metric: ["Validation score", (run) => run.validations.map(([step, metric]) => [step, metric])],
  training: ["Training loss", (run) => run.losses],
};

function drawCurves() {
  const group = DATA.curves[Number(byId("curves-group").value)];
  const [title, points] = CURVES[byId("curves-measure").value];
  const labels = [...new Set(group.runs.map((run) => run.label))];
  const seen = new Set();
  const traces = group.runs.map((run) => {
    const known = points(run).filter(([, value]) => value !== null);
    const { color, symbol } = look(labels.indexOf(run.label));
    const first = !seen.has(run.label);
    seen.add(run.label);
    return {
      x: known.map(([step]) => step), y: known.map(([, value]) => value), mode: known.length > 60 ? "lines" : "lines+markers",
      name: inert(run.label), legendgroup: run.label, showlegend: first,
      line: { color, width: 1.5, dash: DASHES[run.seed % DASHES.length] }, marker: { color, symbol, size: 7 },
      ...hover(known.map(([step, value]) => `<b>${inert(run.label)}</b>, seed ${run.seed}<br>step ${step}: ${shown(value)}${step === run.best ? "<br>kept" : ""}`)),
    };
  });
  plot("curves", traces, layout({ title: "Step" }, { title }), `${group.title}. One line a run; seeds differ by the dashes.`);
  numbers("curves", `${group.title}: ${title.toLowerCase()}`, ["Row", "Seed", "Step", title],
    group.runs.flatMap((run) => points(run).map(([step, value]) => [run.label, String(run.seed), String(step), value])));
}

// --- forgetting against gain --------------------------------------------------------------

function baseOf(table, row) {
  return table.rows.find((one) => one.method === "none" && one.model === row.model && one.perplexity !== null);
}

function drawLost() {
  const table = tableOf("lost-table");
  fillMeasures("lost-measure", table);
  const measure = table.measures.find((one) => one.key === byId("lost-measure").value);
  if (!measure) return;
  const score = (row) => (row.values[measure.key] || [null])[0];
  const rows = table.rows.filter((row) => row.perplexity !== null && row.method !== "none" && baseOf(table, row) && score(row) !== null && score(baseOf(table, row)) !== null);
  const gain = (row) => (measure.lower ? -1 : 1) * (score(row) - score(baseOf(table, row)));
  const ratio = (row) => row.perplexity / baseOf(table, row).perplexity;
  const traces = methodsOf(rows).map((method, number) => {
    const own = rows.filter((row) => row.method === method);
    const { color, symbol } = look(number);
    return {
      x: own.map(gain), y: own.map(ratio), mode: "markers", name: inert(own[0].title), marker: { color, symbol, size: 11 },
      ...hover(own.map((row) => `<b>${inert(row.label)}</b>${row.stale ? " † stale" : ""}<br>gain ${shown(gain(row), 3)}<br>perplexity ${shown(row.perplexity)}, ${shown(ratio(row), 3)} times the base's`)),
    };
  });
  const { soft } = colours();
  const line = (where) => ({ type: "line", line: { color: soft, width: 1, dash: "dash" }, ...where });
  const type = byId("lost-log").checked ? "log" : "linear";
  const shape = layout({ title: `Gain in ${measure.title} over the base` }, { title: "Perplexity of running text, times the base's", type });
  shape.shapes = [line({ x0: 0, x1: 0, y0: 0, y1: 1, yref: "paper" }), line({ x0: 0, x1: 1, xref: "paper", y0: 1, y1: 1 })];
  plot("lost", traces, shape, `${table.title}. The dashed lines are the base: to the right a row has gained, above it has forgotten.`);
  numbers("lost", table.title, ["Row", "Gain", "Perplexity", "Times the base's"], rows.map((row) => [row.label, gain(row), row.perplexity, ratio(row)]));
}

// --- controls -----------------------------------------------------------------------------

function setUpCharts() {
  const titled = (keep) => DATA.tables.map((table, number) => [number, `${table.name}: ${table.title}`, table])
    .filter(([, , table]) => keep(table)).map(([number, text]) => [number, text]);
  /** The table with most methods whose cost is known comes first; searches of rates come last. */
  const preferred = (keep) => {
    const methods = (table) => new Set(table.rows.filter((row) => row.costs.seconds !== null).map((row) => row.method)).size;
    const rank = (table) => (table.name.startsWith("rates") ? 0 : 1 + methods(table));
    const kept = DATA.tables.filter(keep).sort((one, other) => rank(other) - rank(one));
    return String(DATA.tables.indexOf(kept[0]));
  };
  if (byId("trade-off")) {
    fillSelect(byId("trade-table"), titled((table) => table.measures.length), false);
    byId("trade-table").value = preferred((table) => table.measures.length);
    fillSelect(byId("trade-cost"), Object.entries(DATA.costs), false);
    onChange(["trade-table", "trade-measure", "trade-cost", "trade-log", "trade-intervals"], drawTrade);
    whenShown("trade-off", drawTrade);
  }
  if (byId("rates-source")) {
    fillSelect(byId("rates-source"), DATA.rates.map((source, number) => [number, source.title]), false);
    fillSelect(byId("rates-measure"), [["score", "score"], ["ratio", "perplexity ratio"]], false);
    onChange(["rates-source", "rates-measure"], drawRates);
    whenShown("learning", drawRates);
  }
  if (byId("curves-group")) {
    fillSelect(byId("curves-group"), DATA.curves.map((group, number) => [number, group.title]), false);
    fillSelect(byId("curves-measure"), Object.entries(CURVES).map(([key, [title]]) => [key, title]), false);
    onChange(["curves-group", "curves-measure"], drawCurves);
    whenShown("learning", drawCurves);
  }
  if (byId("forgetting")) {
    const measured = (table) => table.rows.some((row) => row.perplexity !== null && row.method !== "none");
    fillSelect(byId("lost-table"), titled(measured), false);
    byId("lost-table").value = preferred(measured);
    onChange(["lost-table", "lost-measure", "lost-log"], drawLost);
    whenShown("forgetting", drawLost);
  }
}
