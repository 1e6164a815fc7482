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

// A table with a caption for screen readers; cells carry their heading for narrow screens.
export function table(label, headings) {
  const body = element("tbody");
  const head = element("thead", {}, element("tr", {}, ...headings.map((one) => element("th", { scope: "col" }, one))));
  return { whole: element("table", { "aria-label": label }, head, body), body };
}

export function row(headings) {
  const made = element("tr");
  for (const one of headings) made.append(element("td", { "data-label": one }));
  return made;
}
