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

// Make the children of `parent` those of `items`, in their order. Elements are kept by key, so that focus stays where it is.
export function keep(parent, items, keyOf, make, update) {
  const known = (parent.kept ??= new Map());
  const left = new Set(known.keys());
  let place = parent.firstChild;
  for (const item of items) {
    const key = keyOf(item);
    left.delete(key);
    let one = known.get(key);
    if (!one) {
      one = make(item);
      known.set(key, one);
    }
    update(one, item);
    if (one === place) place = place.nextSibling;
    else parent.insertBefore(one, place);
  }
  for (const key of left) {
    known.get(key).remove();
    known.delete(key);
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
