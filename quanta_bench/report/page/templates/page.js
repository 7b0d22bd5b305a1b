"use strict";
// What the parts of the page share. Data reach the document as text nodes and attributes alone.

const DATA = JSON.parse(document.getElementById("data").textContent);
const byId = (id) => document.getElementById(id);

/** An element with attributes and children; a child that is no element becomes text. */
function make(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null).map((child) =>
    child instanceof Node ? child : String(child)));
  return element;
}

function fillSelect(select, options, keep) {
  const before = keep ? select.value : "";
  select.replaceChildren(...options.map(([value, text]) => make("option", { value }, text)));
  if (options.some(([value]) => String(value) === before)) select.value = before;
}

/** Call `then` whenever one of the controls changes. */
function onChange(ids, then) {
  for (const id of ids) {
    const event = byId(id).type === "search" ? "input" : "change";
    byId(id).addEventListener(event, then);
  }
}

function say(text) {
  byId("status").textContent = text;
}

/** Whether a text holds all words of a filter. */
function holds(text, filter) {
  const lower = text.toLowerCase();
  return filter.toLowerCase().split(/\s+/).every((word) => lower.includes(word));
}

/** A number as people read it. */
function shown(value, digits = 4) {
  if (value === null || value === undefined) return "–";
  if (Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en");
  return String(Number(value.toPrecision(digits)));
}

// --- tabs ---------------------------------------------------------------------------------

const panels = [...document.querySelectorAll(".panel")];
const drawn = new Map(); // by panel's id, what draws its charts

function whenShown(id, draw) {
  drawn.set(id, [...(drawn.get(id) || []), draw]);
}

function draw(id) {
  for (const one of drawn.get(id) || []) one();
}

function openPanel(id, focus = false) {
  for (const panel of panels) {
    const open = panel.id === id;
    panel.hidden = !open;
    const tab = byId(`tab-${panel.id}`);
    tab.setAttribute("aria-selected", String(open));
    tab.tabIndex = open ? 0 : -1;
    if (open) {
      if (focus) tab.focus();
      tab.scrollIntoView({ block: "nearest", inline: "nearest" });
    }
  }
  draw(id);
}

function setUpTabs() {
  const list = byId("tabs");
  for (const panel of panels) {
    const tab = make("button", {
      type: "button", role: "tab", id: `tab-${panel.id}`, "aria-controls": panel.id,
    }, panel.dataset.title);
    tab.addEventListener("click", () => {
      openPanel(panel.id);
      history.replaceState(null, "", `#${panel.id}`);
    });
    panel.setAttribute("role", "tabpanel");
    panel.setAttribute("aria-labelledby", tab.id);
    list.append(tab);
  }
  list.addEventListener("keydown", (event) => {
    const at = panels.findIndex((panel) => !panel.hidden);
    const to = { ArrowRight: at + 1, ArrowLeft: at - 1, Home: 0, End: panels.length - 1 }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    openPanel(panels[(to + panels.length) % panels.length].id, true);
  });
  const asked = panels.find((panel) => `#${panel.id}` === location.hash);
  window.addEventListener("hashchange", () => {
    const named = panels.find((panel) => `#${panel.id}` === location.hash);
    if (named) openPanel(named.id);
  });
  openPanel((asked || panels[0]).id);
}

// --- colours ------------------------------------------------------------------------------

const dark = window.matchMedia("(prefers-color-scheme: dark)");
let printing = false;

function colours() {
  const style = getComputedStyle(document.documentElement);
  const one = (name) => style.getPropertyValue(`--${name}`).trim();
  return { paper: one("paper"), ink: one("ink"), soft: one("soft"), grid: one("grid"), rule: one("rule") };
}

function redrawAll() {
  for (const panel of panels) if (!panel.hidden || printing) draw(panel.id);
}

function setPrinting(on) {
  if (printing === on) return;
  printing = on;
  document.documentElement.classList.toggle("printing", on);
  redrawAll();
}

function setUpColours() {
  dark.addEventListener("change", redrawAll);
  // Browsers differ in which of the two they tell.
  window.addEventListener("beforeprint", () => setPrinting(true));
  window.addEventListener("afterprint", () => setPrinting(false));
  window.matchMedia("print").addEventListener("change", (event) => setPrinting(event.matches));
}

window.addEventListener("DOMContentLoaded", () => {
  setUpColours();
  setUpTables();
  setUpCharts();
  setUpItems();
  setUpTabs();
  document.documentElement.classList.add("ready");
});
