// What differs between two configurations, setting by setting.

/**
 * @param {any} a @param {any} b
 * @returns {{path: string, a: string, b: string}[]} by path; a missing setting is "–"
 */
export function differences(a, b) {
  const [left, right] = [flat(a), flat(b)];
  const paths = [...new Set([...left.keys(), ...right.keys()])].sort();
  return paths
    .filter((path) => left.get(path) !== right.get(path))
    .map((path) => ({ path, a: left.get(path) ?? "–", b: right.get(path) ?? "–" }));
}

/** @param {any} value @param {string} [path] @param {Map<string, string>} [found] */
function flat(value, path = "", found = new Map()) {
  if (value !== null && typeof value === "object") {
    for (const [name, each] of Object.entries(value)) flat(each, path ? `${path}.${name}` : name, found);
  } else if (value !== undefined) found.set(path, String(value));
  return found;
}
