// Elements. What clients sent becomes text nodes and nothing else; there is no way here to give HTML.

export function element(tag, attributes = {}, ...children) {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  made.append(...children);
  return made;
}

// Nothing is touched where nothing changed, so that a selection and a screen reader's place stay.
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

export function setClass(node, name) {
  if (node.className !== name) node.className = name;
}

export function setTitle(node, title) {
  if (node.title !== title) node.title = title;
}

export function setHref(node, href) {
  if (node.getAttribute("href") !== href) node.setAttribute("href", href);
}

export function show(node, shown) {
  node.classList.toggle("hidden", !shown);
}

// Make the children of `parent` those of `items`, in their order. Elements are kept by key and only moved where the order changed,
// so that focus stays where it is. Where a key comes again, it counts as another one.
export function keep(parent, items, keyOf, make, update) {
  const known = parent.kept ?? new Map();
  const wanted = new Map();
  for (const item of items) {
    let key = keyOf(item);
    while (wanted.has(key)) key += " again";
    wanted.set(key, item);
  }
  for (const [key, one] of known) if (!wanted.has(key)) one.remove();
  parent.kept = new Map();
  let place = parent.firstChild;
  for (const [key, item] of wanted) {
    const one = known.get(key) ?? make(item);
    parent.kept.set(key, one);
    update(one, item);
    if (one === place) place = place.nextSibling;
    else parent.insertBefore(one, place);
  }
}

// A table with a name for screen readers; cells carry their heading for narrow screens. Headings that begin with > are of numbers, with - of what
// is not broken over lines.
export function table(label, headings) {
  const body = element("tbody");
  const cells = headings.map((one) => element("th", { scope: "col", ...(one.startsWith(">") ? { class: "right" } : {}) }, nameOf(one)));
  const head = element("thead", {}, element("tr", {}, ...cells));
  const whole = element("div", { class: "scroll" }, element("table", { "aria-label": label }, head, body));
  return { whole, body };
}

export function row(headings) {
  const made = element("tr");
  for (const one of headings) {
    const name = one.startsWith(">") ? "right number" : one.startsWith("-") ? "whole" : "";
    made.append(element("td", { "data-label": nameOf(one), ...(name ? { class: name } : {}) }));
  }
  return made;
}

function nameOf(heading) {
  return /^[>-]/.test(heading) ? heading.slice(1) : heading;
}

export function labelled(words, field) {
  return element("label", {}, words, field);
}

// A bar of how far something is; without a number it is empty and says so.
export function bar(label) {
  return element("div", { class: "bar-whole", role: "progressbar", "aria-label": label, "aria-valuemin": "0", "aria-valuemax": "100" }, element("div"));
}

export function setBar(whole, percent, state) {
  const known = Number.isFinite(percent);
  const width = `${Math.min(100, Math.max(0, known ? percent : 0))}%`;
  if (whole.firstChild.style.width !== width) whole.firstChild.style.width = width;
  setClass(whole.firstChild, `fill-${state}`);
  if (known) whole.setAttribute("aria-valuenow", String(Math.round(percent)));
  else whole.removeAttribute("aria-valuenow");
}

// A button that puts a text on the clipboard; on plain HTTP from elsewhere browsers have only the old way.
export function copyButton(label, textOf, what = "") {
  const made = element("button", { type: "button", class: "copy", ...(what ? { "aria-label": `${label} ${what}`, title: `${label} ${what}` } : {}) }, label);
  made.addEventListener("click", async () => {
    const text = textOf();
    let done = true;
    try {
      await navigator.clipboard.writeText(text);
    } catch {
      done = copyByField(text);
    }
    setText(made, done ? "copied" : "not copied");
    setTimeout(() => setText(made, label), 1_500);
  });
  return made;
}

function copyByField(text) {
  const field = element("textarea", { "aria-hidden": "true", class: "aside" });
  field.value = text;
  document.body.append(field);
  field.select();
  const done = document.execCommand("copy");
  field.remove();
  return done;
}
