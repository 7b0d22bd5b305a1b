// The item browser: which items, and what each run answered.

const itemState = { task: null, items: [], open: null };

function answerText(item, answer) {
  if (answer === null) return "not asked";
  const [prediction, , more] = answer;
  if (more && more.text !== undefined) return more.text;
  const tied = more && more.tied && more.tied.length > 1 ? more.tied : [prediction];
  return tied.map((one) => choiceText(item, one)).join(" = ");
}

function choiceText(item, index) {
  if (index === null || index === undefined) return "no answer";
  const text = Number.isInteger(index) ? item.choices[index] : undefined;
  return text !== undefined ? text : String(index);
}

/** Right, wrong, or the score: a word and a sign, never a colour alone. */
function verdict(answer) {
  if (answer === null) return "";
  const score = answer[1];
  if (score === null || score === undefined) return "?";
  return score === 1 ? "✓" : score === 0 ? "✗" : shown(score, 2);
}

function differs(item, a, b) {
  const one = item.answers[a], other = item.answers[b];
  return one !== null && other !== null && JSON.stringify(one[0]) !== JSON.stringify(other[0]);
}

/** Seeds may draw items of their own; a run without training is then scored on those of each. */
function runTitle(run, runs) {
  const several = runs.some((other) => other.draw !== run.draw);
  return `${run.label}, seed ${run.seed}${several ? `, items of draw ${run.draw}` : ""}`;
}

function listItems() {
  const { task } = itemState;
  const a = Number(byId("items-a").value), b = Number(byId("items-b").value);
  const filter = byId("items-filter").value.trim();
  const only = byId("items-differ").checked;
  itemState.items = task.items.filter((item) =>
    (!only || differs(item, a, b)) &&
    holds([item.id, item.prompt || "", ...item.choices].join(" "), filter));
  const buttons = itemState.items.map((item) => {
    const button = make("button", { type: "button" }, make("span", {}, item.id),
      make("span", { class: "verdicts" }, `A ${verdict(item.answers[a])} B ${verdict(item.answers[b])}`));
    button.addEventListener("click", () => openItem(item, true));
    return make("li", {}, button);
  });
  byId("items-list").replaceChildren(...buttons);
  byId("items-count").textContent = `${itemState.items.length} of ${task.items.length} items`;
  if (itemState.items.length) openItem(itemState.items.includes(itemState.open) ? itemState.open : itemState.items[0]);
  else byId("item").replaceChildren(make("p", { class: "hint" }, "No item fits."));
}

function openItem(item, byUser = false) {
  itemState.open = item;
  const at = itemState.items.indexOf(item);
  [...byId("items-list").children].forEach((line, number) =>
    line.firstChild.setAttribute("aria-current", String(number === at)));
  const { task } = itemState;
  const a = Number(byId("items-a").value), b = Number(byId("items-b").value);
  const parts = [make("h3", {}, item.id), make("p", { class: "hint" }, `Group ${item.group}`)];
  parts.push(make("h4", {}, "Prompt"));
  parts.push(item.prompt === null ? make("p", { class: "hint" }, "The prompt is not stored.") : make("pre", {}, item.prompt));
  if (item.choices.length) {
    const list = make("ol", { start: "0" });
    item.choices.forEach((text, number) => {
      const tags = [];
      if (number === item.gold) tags.push("right");
      for (const [name, run] of [["A", a], ["B", b]]) {
        if (item.answers[run] !== null && item.answers[run][0] === number) tags.push(name);
      }
      list.append(make("li", {}, text, tags.length ? make("span", { class: "tag" }, tags.join(" · ")) : null));
    });
    parts.push(make("h4", {}, "Choices"), list);
  } else {
    parts.push(make("h4", {}, "Right answer"), make("pre", {}, choiceText(item, item.gold)));
  }
  parts.push(make("h4", {}, "Answers"), answersTable(task, item, a, b));
  byId("item").replaceChildren(...parts);
  // On a phone the item stands below the list.
  if (byUser && window.innerWidth <= 640) byId("item").scrollIntoView({ block: "start" });
}

function answersTable(task, item, a, b) {
  const head = make("tr", {}, ...["Row", "Seed", "Answer", task.metric].map((text) => make("th", { scope: "col" }, text)));
  const body = make("tbody");
  task.runs.forEach((run, number) => {
    const answer = item.answers[number];
    if (answer === null) return;
    const mark = number === a ? " A" : number === b ? " B" : "";
    body.append(make("tr", { class: mark ? "chosen" : null },
      make("th", { scope: "row" }, run.label, mark ? make("span", { class: "tag" }, mark) : null),
      make("td", { class: "n" }, run.seed),
      make("td", { class: "answer" }, answerText(item, answer)),
      make("td", { class: "n" }, `${verdict(answer)} ${shown(answer[1], 3)}`)));
  });
  const table = make("table", {}, make("caption", { class: "unseen" }, `Answers to ${item.id}`), make("thead", {}, head), body);
  return make("div", { class: "scroll" }, table);
}

function chooseTask() {
  itemState.task = DATA.items[Number(byId("items-task").value)];
  itemState.open = null;
  const { runs, note } = itemState.task;
  const options = runs.map((run, number) => [number, runTitle(run, runs)]);
  fillSelect(byId("items-a"), options, false);
  fillSelect(byId("items-b"), options, false);
  const other = runs.findIndex((run) => run.label !== runs[0].label && run.draw === runs[0].draw);
  byId("items-b").value = String(other < 0 ? runs.length - 1 : other);
  byId("items-note").textContent = note;
  listItems();
}

function setUpItems() {
  if (!byId("items-task")) return;
  fillSelect(byId("items-task"), DATA.items.map((task, number) => [number, task.title]), false);
  onChange(["items-task"], chooseTask);
  onChange(["items-a", "items-b", "items-differ", "items-filter"], listItems);
  chooseTask();
}
