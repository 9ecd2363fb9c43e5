// A form from a JSON schema of the API's document: its types, limits, choices and texts.
import { html } from "../html.js";

/** Deeper objects are edited as YAML. */
const DEEPEST = 3;

/** @typedef {{schemas: Record<string, any>, problems: Map<string, string>}} Context */

/** @param {any} schema @param {Record<string, any>} schemas @returns {any} */
function resolved(schema, schemas) {
  if (schema?.$ref) return resolved(schemas[schema.$ref.split("/").at(-1)], schemas);
  if (schema?.allOf?.length === 1) return { ...schema, ...resolved(schema.allOf[0], schemas) };
  if (schema?.anyOf) {
    const some = schema.anyOf.map((/** @type {any} */ each) => resolved(each, schemas)).find((/** @type {any} */ each) => each && each.type !== "null");
    return { ...schema, ...some };
  }
  return schema ?? {};
}

/** @param {any} schema */
const typeOf = (schema) => (Array.isArray(schema.type) ? schema.type.find((/** @type {string} */ each) => each !== "null") : schema.type);

/**
 * @param {{schemas: Record<string, any>, name: string, value: any, change: (value: any) => void,
 *   problems: Map<string, string>}} props
 */
export function Fields({ schemas, name, value, change, problems }) {
  const schema = resolved(schemas[name] ?? schemas[Object.keys(schemas).find((each) => each.toLowerCase().includes("submitjob")) ?? ""], schemas);
  return html`${Object.entries(schema.properties ?? {}).map(
    ([each, inner]) => html`<${Field} key=${each} path=${each} name=${each} schema=${inner} schemas=${schemas} problems=${problems} depth=${0}
      required=${schema.required?.includes(each)} value=${value?.[each]} change=${(/** @type {any} */ next) => change(changed(value, each, next))} />`,
  )}`;
}

/** @param {any} object @param {string} name @param {any} value */
function changed(object, name, value) {
  const next = { ...object };
  if (value === undefined || value === "") delete next[name];
  else next[name] = value;
  return next;
}

/** @param {any} props */
function Field({ path, name, schema: given, schemas, problems, depth, required, value, change }) {
  const schema = resolved(given, schemas);
  const type = typeOf(schema);
  const help = schema.description ?? given?.description ?? "";
  const id = `field-${path}`;
  const problem = problems.get(path);
  const label = name.replaceAll("_", " ");
  if (type === "object" && schema.properties && depth < DEEPEST) {
    return html`<details class="group" open=${required || value !== undefined}>
      <summary>${label}${required ? " *" : ""}</summary>
      ${problem ? html`<p class="bad">${problem}</p>` : null}
      ${Object.entries(schema.properties).map(
        ([each, inner]) => html`<${Field} key=${each} path=${`${path}.${each}`} name=${each} schema=${inner} schemas=${schemas} problems=${problems} depth=${depth + 1}
          required=${schema.required?.includes(each)} value=${value?.[each]} change=${(/** @type {any} */ next) => change(changed(value, each, next))} />`,
      )}
    </details>`;
  }
  return html`<div class=${`field${problem ? " wrong" : ""}`}>
    <label for=${id}>${label}${required ? " *" : ""}</label>
    ${control({ id, schema, type, value, change })}
    ${problem ? html`<span class="bad" role="alert">${problem}</span>` : null}
    ${help ? html`<span class="quiet help">${help}</span>` : null}
  </div>`;
}

/** @param {any} given */
function control({ id, schema, type, value, change }) {
  if (schema.enum) {
    return html`<select id=${id} value=${value ?? ""} onChange=${(/** @type {any} */ event) => change(event.target.value)}>
      <option value="">${schema.default ? `default: ${schema.default}` : "–"}</option>
      ${schema.enum.filter((/** @type {any} */ each) => each !== "" && each !== null).map((/** @type {string} */ each) => html`<option value=${each}>${each}</option>`)}
    </select>`;
  }
  if (type === "boolean") {
    return html`<input id=${id} type="checkbox" checked=${Boolean(value ?? schema.default)} onChange=${(/** @type {any} */ event) => change(event.target.checked)} />`;
  }
  if (type === "integer" || type === "number") {
    return html`<input id=${id} type="number" value=${value ?? ""} min=${schema.minimum} max=${schema.maximum} step=${type === "integer" ? 1 : "any"} placeholder=${schema.default ?? ""}
      onInput=${(/** @type {any} */ event) => change(event.target.value === "" ? undefined : Number(event.target.value))} />`;
  }
  if (type === "string") {
    return html`<input id=${id} value=${value ?? ""} maxlength=${schema.maxLength} placeholder=${schema.default ?? ""} onInput=${(/** @type {any} */ event) => change(event.target.value)} />`;
  }
  if (type === "array" && typeOf(schema.items ?? {}) === "string") {
    return html`<input id=${id} value=${(value ?? []).join(", ")} placeholder="a, b" onChange=${(/** @type {any} */ event) =>
      change(event.target.value ? event.target.value.split(",").map((/** @type {string} */ each) => each.trim()).filter(Boolean) : undefined)} />`;
  }
  if (type === "object" && !schema.properties) return html`<${Pairs} id=${id} value=${value ?? {}} change=${change} />`;
  return html`<span class="quiet" id=${id}>${value === undefined ? "not given" : `${Array.isArray(value) ? value.length : Object.keys(value).length} given`}: edit it in the YAML</span>`;
}

/** Names and values, such as hyperparameters and labels. @param {any} props */
function Pairs({ id, value, change }) {
  const pairs = Object.entries(value);
  const set = (/** @type {number} */ index, /** @type {string} */ name, /** @type {any} */ each) => {
    const next = pairs.map((pair, at) => (at === index ? [name, each] : pair));
    if (index === pairs.length) next.push([name, each]);
    change(Object.fromEntries(next.filter(([key]) => key !== "")));
  };
  return html`<div class="pairs" id=${id}>
    ${[...pairs, ["", ""]].map(
      ([name, each], index) => html`<span key=${index}><input aria-label="Name" value=${name} placeholder="name" onChange=${(/** @type {any} */ event) => set(index, event.target.value, each)} />
        <input aria-label="Value" value=${typeof each === "object" ? JSON.stringify(each) : each} placeholder="value" disabled=${index === pairs.length} onChange=${(/** @type {any} */ event) => set(index, /** @type {string} */ (name), event.target.value)} /></span>`,
    )}
  </div>`;
}
