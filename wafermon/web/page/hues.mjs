// Which colour a service has: the same one in all views, by its name. Pure.

export const HUES = 8;

export function hue(service) {
  let number = 2166136261;
  for (const letter of String(service)) number = Math.imul(number ^ letter.codePointAt(0), 16777619) >>> 0;
  return (number >>> 8) % HUES;
}

// Of services that are seen together: those that would look alike move on to a colour that is free. Answers with a function like `hue`.
export function huesOf(services) {
  const chosen = new Map();
  const taken = new Set();
  for (const service of services) {
    let number = hue(service);
    for (let step = 0; step < HUES && taken.has(number); step += 1) number = (number + 1) % HUES;
    if (taken.size >= HUES) number = hue(service);
    taken.add(number);
    chosen.set(service, number);
  }
  return (service) => chosen.get(service) ?? hue(service);
}
