// Shows the OpenAPI document of this gateway. Everything is made of text nodes: nothing in the document is markup.

const page = document.getElementById("page");
const list = document.getElementById("list");
const side = document.getElementById("side");
const search = document.getElementById("search");
const count = document.getElementById("count");
const { mode, base } = document.body.dataset;

// -- small things ----------------------------------------------------------------------------------------------------

function h(tag, attributes, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== undefined && child !== null && child !== false));
  return element;
}

const code = (text) => h("code", null, String(text));
const soft = (...text) => h("p", { class: "soft" }, ...text);
const link = (route, ...text) => h("a", { href: "#/" + route }, ...text);
const list_of = (values) => values.flatMap((value, index) => (index ? [", ", value] : [value]));

function table(heads, rows, kind) {
  const head = h("tr", null, heads.map((text) => h("th", { scope: "col" }, text)));
  return h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": heads.join(", ") },
    h("table", { class: kind }, h("thead", null, head), h("tbody", null, rows.map((row) => h("tr", null, row.map((cell) => h("td", null, cell)))))));
}

/** Text in which `…` is code. */
const marked = (text) => text.split("`").map((part, index) => (index % 2 ? code(part) : part));

/** JSON with keys, texts and numbers told apart. */
function json(value) {
  const text = JSON.stringify(value, null, 2) ?? "";
  const parts = text.split(/("(?:[^"\\]|\\.)*"(?:\s*:)?|-?\b\d[\d.eE+-]*\b|\b(?:true|false|null)\b)/);
  return h("pre", { tabindex: 0 }, parts.map((part, index) => {
    if (index % 2 === 0) return part;
    return h("span", { class: part.startsWith('"') ? (part.endsWith(":") ? "k" : "s") : "n" }, part);
  }));
}

function copyable(text, shown) {
  const button = h("button", { type: "button", class: "copy", onclick: async () => {
    try { await navigator.clipboard.writeText(text()); button.textContent = "Copied"; }
    catch { button.textContent = "Select and copy by hand"; }
    setTimeout(() => { button.textContent = "Copy"; }, 1500);
  } }, "Copy");
  return [shown, button];
}

/** A choice of named values; what is chosen is shown below by `show`. */
function chooser(label, names, show) {
  const place = h("div");
  const select = h("select", { "aria-label": label, onchange: () => place.replaceChildren(...[show(select.value)].flat()) },
    names.map((name) => h("option", { value: name }, name)));
  if (names.length) place.append(...[show(names[0])].flat());
  return names.length > 1 ? [h("div", { class: "bar" }, h("label", null, label, " ", select)), place] : [place];
}

// -- the document ----------------------------------------------------------------------------------------------------

let api;
const operations = new Map(); // id -> { id, method, path, told, family }
const models = new Map(); // name -> { name, schema, operation }

function at(pointer) {
  return pointer.slice(2).split("/").reduce((value, part) => value?.[part.replaceAll("~1", "/").replaceAll("~0", "~")], api);
}
const resolved = (value) => (value?.$ref ? at(value.$ref) : value);

function read(document) {
  api = document;
  for (const [path, item] of Object.entries(api.paths)) {
    for (const [method, told] of Object.entries(item)) {
      const operation = { id: told.operationId, method: method.toUpperCase(), path, told, family: told.tags[0] };
      operation.words = [operation.id, path, told.summary, operation.family, ...(told["x-also"] ?? [])].join(" ").toLowerCase();
      operations.set(operation.id, operation);
      for (const choice of body_of(operation)?.schema.oneOf ?? []) {
        const schema = resolved(choice);
        if (!schema?.["x-model"]) continue;
        const model = { name: schema["x-model"], schema, operation };
        model.words = [model.name, schema.title, schema["x-vendor"], schema["x-kind"]].join(" ").toLowerCase();
        models.set(model.name, model);
      }
    }
  }
}

/** The request's content: its type, schema and examples. */
function body_of(operation) {
  const contents = Object.entries(operation.told.requestBody?.content ?? {});
  if (!contents.length) return undefined;
  const [type, content] = contents[0];
  return { type, schema: content.schema ?? {}, examples: content.examples ?? {} };
}

// -- the list at the side --------------------------------------------------------------------------------------------

const method_mark = (operation) => h("span", { class: "method " + operation.method.toLowerCase() }, operation.method);
const route_of = (operation) => "op/" + encodeURIComponent(operation.id);
const route_of_model = (model) => "model/" + encodeURIComponent(model.name);

const operation_item = (operation) => h("li", null,
  h("a", { href: "#/" + route_of(operation), title: operation.path }, method_mark(operation), h("span", null, operation.id.slice(operation.id.indexOf(".") + 1))));
const found_operation = (operation) => h("li", null,
  h("a", { href: "#/" + route_of(operation) }, method_mark(operation), h("span", null, operation.path)));
const found_model = (model) => h("li", null,
  h("a", { href: "#/" + route_of_model(model) }, h("span", { class: "method" }, "MODEL"), h("span", null, model.name)));

function show_list() {
  const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
  if (!words.length) {
    list.replaceChildren(...api.tags.map((tag) => {
      const own = [...operations.values()].filter((operation) => operation.family === tag.name);
      return h("details", { "data-family": tag.name }, h("summary", null, tag.description, " ", h("span", { class: "number" }, own.length)),
        h("ul", null, own.map(operation_item)));
    }));
    count.textContent = `${operations.size} operations, ${models.size} models`;
  } else {
    const fits = (thing) => words.every((word) => thing.words.includes(word));
    const found = [...operations.values()].filter(fits);
    const found_models = [...models.values()].filter(fits);
    list.replaceChildren(h("ul", null, found.map(found_operation), found_models.map(found_model)));
    count.textContent = `${found.length} operations, ${found_models.length} models found`;
    side.classList.add("open");
  }
  mark_current();
}

function mark_current() {
  for (const anchor of list.querySelectorAll("a")) {
    const current = anchor.getAttribute("href") === location.hash;
    if (current) {
      anchor.setAttribute("aria-current", "page");
      const group = anchor.closest("details");
      if (group) group.open = true;
    } else {
      anchor.removeAttribute("aria-current");
    }
  }
}

// -- schemas ---------------------------------------------------------------------------------------------------------

function type_text(schema) {
  const own = Array.isArray(schema.type) ? schema.type.join(" or ") : schema.type;
  if (own === "array") return `list of ${type_text(resolved(schema.items) ?? {})}`;
  if (own) return own;
  const choices = schema.anyOf ?? schema.oneOf;
  if (choices) return [...new Set(choices.map((choice) => type_text(resolved(choice))))].join(" or ");
  if (schema.enum) return [...new Set(schema.enum.map((value) => (value === null ? "null" : typeof value)))].join(" or ");
  if ("const" in schema) return typeof schema.const;
  return "any";
}

/** What a schema says beyond its type, as short phrases. */
function limits(schema) {
  const told = [];
  const say = (...parts) => told.push(parts);
  if (schema.enum) say("one of ", list_of(schema.enum.map((value) => code(JSON.stringify(value)))));
  if ("const" in schema) say("always ", code(JSON.stringify(schema.const)));
  if ("default" in schema) say("default ", code(JSON.stringify(schema.default)));
  const span = (low, high, unit) => {
    const [least, most] = [schema[low], schema[high]];
    const units = (number) => `${number}${unit && ` ${unit}${number === 1 ? "" : "s"}`}`;
    if (least !== undefined && most !== undefined) say(least === most ? units(least) : `${least} to ${units(most)}`);
    else if (least !== undefined) say(`at least ${units(least)}`);
    else if (most !== undefined) say(`at most ${units(most)}`);
  };
  span("minimum", "maximum", "");
  span("minLength", "maxLength", "character");
  span("minItems", "maxItems", "item");
  if (schema.pattern) say("pattern ", code(schema.pattern));
  if (schema.format) say(schema.format);
  if (schema.contentMediaType === "application/json") say("JSON as text");
  const media = schema["x-media"];
  if (media) {
    const rest = [];
    if (media.accept) rest.push(media.accept.map((type) => type.split("/").pop()).join(", "));
    if (media.max_mb) rest.push(`up to ${media.max_mb} MB`);
    if (media.max_files) rest.push(`${media.max_files} at most`);
    const known = ["kind", "accept", "max_mb", "max_files", "given_as"];
    for (const [name, value] of Object.entries(media)) {
      if (!known.includes(name)) rest.push(`${name.replaceAll("_", " ")} ${typeof value === "object" ? JSON.stringify(value) : value}`);
    }
    say(`${media.kind ?? "media"}${rest.length ? ": " + rest.join("; ") : ""}`);
  }
  if (schema.items && schema.type === "array") {
    const items = resolved(schema.items);
    for (const [index, phrase] of limits(items).entries()) told.push([index ? "" : "each: ", phrase]);
  }
  return told;
}

function field_rows(schema, prefix = "", depth = 0) {
  const rows = [];
  for (const [name, given] of Object.entries(schema.properties ?? {})) {
    const property = resolved(given);
    const needed = schema.required?.includes(name);
    const told = limits(property).map((phrase) => h("div", null, phrase));
    rows.push([
      [h("span", { class: property.deprecated ? "old" : "" }, code(prefix + name)), needed && h("span", { class: "needed" }, "needed")],
      type_text(property),
      [property.description && h("div", null, property.description), told],
    ]);
    const inner = property.type === "array" ? resolved(property.items) : property;
    if (inner?.properties && depth < 4) {
      rows.push(...field_rows(inner, `${prefix}${name}${property.type === "array" ? "[]" : ""}.`, depth + 1));
    }
  }
  return rows;
}

function fields(schema) {
  const rows = field_rows(schema);
  const parts = [rows.length ? table(["Field", "Type", "Meaning and limits"], rows, "fields") : soft("Nothing.")];
  const conditions = {};
  for (const keyword of ["allOf", "anyOf", "oneOf", "not", "if", "then", "else", "dependentRequired", "additionalProperties"]) {
    if (keyword in schema && schema[keyword] !== true) conditions[keyword] = schema[keyword];
  }
  if (Object.keys(conditions).length) {
    parts.push(h("details", { class: "more" }, h("summary", null, "Further conditions, as JSON Schema"), json(conditions)));
  }
  return parts;
}

// -- parts of a page -------------------------------------------------------------------------------------------------

const section = (title, ...content) => [h("h2", null, title), ...content.flat(Infinity).filter(Boolean)];
const plain = (value) => (value === null ? "null" : typeof value === "object" ? JSON.stringify(value) : String(value));

function when_text(when) {
  const conditions = Object.entries(when ?? {});
  if (!conditions.length) return "always";
  return conditions.map(([pointer, expected], index) => {
    let text;
    if (Array.isArray(expected)) text = [...new Set(expected.map(plain))].join(" or ");
    else if (expected && typeof expected === "object" && "given" in expected) text = expected.given ? "given" : "not given";
    else if (expected && typeof expected === "object") text = [expected.from !== undefined && `from ${expected.from}`, expected.to !== undefined && `to ${expected.to}`].filter(Boolean).join(" ");
    else text = plain(expected);
    return [index ? ", " : "", code(pointer.slice(1).replaceAll("/", ".")), ` ${text}`];
  });
}

function prices(price) {
  if (price === undefined) return [];
  if (price === null) return section("Price", soft("Not known; the simulator charges nothing."));
  const parts = [table(["Credits", "When"], price.rates.map((rate) => [String(rate.credits), when_text(rate.when)]))];
  if (price.times !== undefined) parts.push(soft("Times ", times_text(price.times), "."));
  for (const plus of price.plus ?? []) {
    parts.push(soft(`Plus ${plus.credits} for each item of `, code(plus.for_each.slice(1)), plus.beyond ? ` beyond the first ${plus.beyond}` : "", "."));
  }
  return section("Price", parts, soft("Source: ", price.source));
}

function times_text(times) {
  if (times === null || typeof times !== "object") return String(times);
  if (times.from && !times.map) return [code(times.from.slice(1)), times.else !== undefined ? ` (else ${plain(times.else)})` : ""];
  return code(JSON.stringify(times));
}

function price_span(price) {
  const credits = (price?.rates ?? []).map((rate) => Number(rate.credits));
  if (!credits.length) return "not known";
  const [low, high] = [Math.min(...credits), Math.max(...credits)];
  return (low === high ? `${low}` : `${low} to ${high}`) + (price.times !== undefined ? " each" : "");
}

function duration(ms) {
  if (ms < 1000) return `${ms} ms`;
  return ms < 120000 ? `${ms / 1000} s` : `${Math.round(ms / 6000) / 10} min`;
}

function life(phases) {
  if (!phases) return [];
  const rows = phases.phases.map((phase) => [code(plain(phase.state)), `${duration(phase.ms[0])} to ${duration(phase.ms[1])}`]);
  rows.push(...Object.entries(phases.endings).map(([name, state]) => [code(plain(state)), `the end: ${name}`]));
  return section("States of the task", table(["State", "Stay"], rows), soft("Source: ", phases.source));
}

function rules(told) {
  if (!told?.length) return [];
  return section("Also refused", h("ul", { class: "notes" }, told.map((rule) => h("li", null, rule.note ? `${rule.id} (${rule.note})` : rule.id))));
}

function other_task(told) {
  if (!told) return [];
  const makers = told.made_by.filter((id) => operations.has(id)).map((id) => link(route_of(operations.get(id)), id));
  const from = told.models?.filter((name) => models.has(name)).map((name) => link(route_of_model(models.get(name)), name));
  const pointers = [told.at, told.id_at].filter(Boolean).map((pointer) => code(pointer.slice(1)));
  const ended = told.ended.length === 1 ? ` that has ended in ${told.ended[0]}` : "";
  if (from?.length > 6) {
    return [h("p", null, list_of(pointers), ` names a task of one of ${from.length} models${ended}.`),
      h("details", { class: "more" }, h("summary", null, "These models"), h("p", null, list_of(from)))];
  }
  return [h("p", null, list_of(pointers), " names a task made by ", from?.length ? list_of(from) : list_of(makers), ended, ".")];
}

const quoted = (text) => "'" + text.replaceAll("'", "'\\''") + "'";
const token = () => (mode === "mock" ? "demo" : "$KIE_API_KEY");
const header = (name, value) => (value.includes("$") ? `-H "${name}: ${value}"` : `-H ${quoted(`${name}: ${value}`)}`);

function curl(operation, example, host) {
  let path = operation.path;
  const query = [];
  for (const parameter of operation.told.parameters ?? []) {
    const value = parameter.example ?? parameter.schema?.default ?? "";
    if (parameter.in === "path") path = path.replace(`{${parameter.name}}`, encodeURIComponent(value).replaceAll("%2F", "/"));
    if (parameter.in === "query" && (parameter.required || parameter.example !== undefined)) {
      query.push(`${parameter.name}=${encodeURIComponent(value)}`);
    }
  }
  const lines = [`curl -s ${quoted(host + path + (query.length ? "?" + query.join("&") : ""))}`, header("Authorization", `Bearer ${token()}`)];
  if (operation.method !== "GET" && operation.method !== "POST") lines[0] += ` -X ${operation.method}`;
  const body = body_of(operation);
  if (body?.type === "multipart/form-data" && example) {
    for (const [name, value] of Object.entries(example)) {
      const file = resolved(body.schema)?.properties?.[name]?.contentEncoding === "binary";
      lines.push(`-F ${quoted(`${name}=${file ? "@" : ""}${plain(value)}`)}`);
    }
  } else if (body) {
    lines.push(header("Content-Type", body.type), `-d ${quoted(JSON.stringify(example ?? {}, null, 2))}`);
  } else if (operation.method === "POST") {
    lines[0] += " -X POST";
  }
  return lines.join(" \\\n  ");
}

/** The example request as a command, against an address that can be changed. */
function request_section(operation, examples) {
  const names = Object.keys(examples);
  let chosen = examples[names[0]]?.value;
  const shown = h("pre", { tabindex: 0 });
  const host = h("input", { type: "text", value: sessionStorage.getItem("base") ?? base, size: 30, spellcheck: "false", oninput: () => { sessionStorage.setItem("base", host.value); update(); } });
  const update = () => { shown.textContent = curl(operation, chosen, host.value.replace(/\/+$/, "")); };
  const select = h("select", { onchange: () => { chosen = examples[select.value].value; update(); } }, names.map((name) => h("option", { value: name }, name)));
  update();
  const [, button] = copyable(() => shown.textContent);
  return section("Example request",
    h("div", { class: "bar" }, h("label", null, "Gateway ", host), names.length > 1 && h("label", null, "Example ", select), button), shown);
}

function answers(operation) {
  const parts = [];
  for (const [status, response] of Object.entries(operation.told.responses)) {
    for (const [type, content] of Object.entries(response.content ?? {})) {
      const good = Object.entries(content.examples ?? {}).filter(([, example]) => !example.$ref);
      if (!good.length) continue;
      const by_name = Object.fromEntries(good);
      parts.push(h("h3", null, `HTTP ${status}, ${type}`), chooser("State", Object.keys(by_name), (name) => [
        by_name[name].summary && soft(by_name[name].summary),
        typeof by_name[name].value === "string" ? h("pre", { tabindex: 0 }, by_name[name].value) : json(by_name[name].value),
      ].filter(Boolean)));
      if (content.schema) parts.push(h("details", { class: "more" }, h("summary", null, "As JSON Schema"), json(content.schema)));
    }
  }
  return parts.length ? section("Answers", parts) : [];
}

function callbacks(operation) {
  const parts = [];
  for (const item of Object.values(operation.told.callbacks ?? {})) {
    for (const [address, { post }] of Object.entries(item)) {
      const content = post.requestBody.content["application/json"];
      parts.push(h("p", null, "Sent as POST to the address at ", code(address.replace(/^\{\$request\.body#\//, "").replace(/\}$/, "")), " of the request. ", Object.values(post.responses)[0].description));
      parts.push(table(["Header", "Meaning"], (post.parameters ?? []).map((parameter) => [code(parameter.name), marked(parameter.description)])));
      parts.push(chooser("State", Object.keys(content.examples ?? {}), (name) => json(content.examples[name].value)));
    }
  }
  return parts.length ? section("Callbacks", parts) : [];
}

const outcome = (name) => h("code", { class: "whole" }, name);

function errors(operation) {
  const rows = [];
  for (const [status, response] of Object.entries(operation.told.responses)) {
    for (const content of Object.values(response.content ?? {})) {
      for (const [name, example] of Object.entries(content.examples ?? {})) {
        if (!example.$ref) continue;
        const told = resolved(example);
        const body = told.value;
        rows.push([plain(body?.code ?? status), status, plain(body?.msg ?? body?.error?.message ?? body), outcome(`reject:${name}`), told["x-evidence"] ?? ""]);
      }
    }
  }
  const parts = rows.length ? section("Refusals", mode === "mock" && soft("Each can be brought about with the header ", code("X-Mock-Outcome"), "."),
    table(["Code", "HTTP", "Message", "Outcome", "Evidence"], rows)) : [];
  const failures = operation.told["x-task-errors"] ?? [];
  if (failures.length) {
    parts.push(...section("Failures of the task", table(["Code", "Message", "Outcome", "Evidence"],
      failures.map((error) => [plain(error.code), plain(error.message), outcome(`fail:${error.id}`), error.evidence]))));
  }
  return parts;
}

function model_table(operation) {
  const own = [...models.values()].filter((model) => model.operation === operation);
  if (!own.length) return [];
  return section(`${own.length} models`, table(["Model", "Kind", "Vendor", "Credits"],
    own.map((model) => [link(route_of_model(model), model.name), model.schema["x-kind"], model.schema["x-vendor"], price_span(model.schema["x-price"])])));
}

function parameters(operation) {
  const own = operation.told.parameters ?? [];
  if (!own.length) return [];
  const rows = own.map((parameter) => [
    [code(parameter.name), parameter.required && h("span", { class: "needed" }, "needed")],
    `${type_text(parameter.schema ?? {})} in ${parameter.in}`,
    [parameter.description && h("div", null, parameter.description), limits(parameter.schema ?? {}).map((phrase) => h("div", null, phrase))],
  ]);
  return section("Parameters", table(["Name", "Type", "Meaning and limits"], rows, "fields"));
}

function notes(text) {
  const own = (text ?? "").split("\n\n").filter(Boolean);
  if (own.length < 2) return own.map((note) => h("p", null, note));
  return [h("ul", { class: "notes" }, own.map((note) => h("li", null, note)))];
}

// -- pages -----------------------------------------------------------------------------------------------------------

function overview() {
  const families = api.tags.map((tag) => {
    const own = [...operations.values()].filter((operation) => operation.family === tag.name);
    return [h("h2", null, tag.description), tag["x-source"] && soft(tag["x-source"]),
      table(["Call", "What it does"], own.map((operation) => [
        link(route_of(operation), method_mark(operation), " ", h("span", { class: "path" }, operation.path)), operation.told.summary]), "halves"),
      tag["x-uncertain"] && h("details", { class: "more" }, h("summary", null, "Not known for sure"), h("ul", { class: "notes" }, tag["x-uncertain"].map((text) => h("li", null, text))))];
  });
  return [h("h1", null, api.info.title), h("p", null, `${operations.size} operations and ${models.size} models. Search for a path, a model or a word, or choose a family.`),
    h("p", null, "Send your key as ", code("Authorization: Bearer …"), mode === "mock" ? "; in mock mode any text will do." : "."), ...families.flat().filter(Boolean)];
}

function operation_page(operation) {
  const { told } = operation;
  const body = body_of(operation);
  const market = body?.schema.oneOf && models.size && [...models.values()].some((model) => model.operation === operation);
  const keys = (told.security ?? []).map((way) => Object.keys(way)[0]);
  return [
    h("h1", { class: "sentence" }, told.summary),
    h("p", { class: "line" }, method_mark(operation), h("span", { class: "path" }, operation.path)),
    told["x-also"] && soft("Also at ", list_of(told["x-also"].map(code))),
    soft(code(operation.id), ` · evidence: ${told["x-evidence"]}`),
    keys.length > 1 && soft("The key may also come as ", list_of(keys.slice(1).map(code)), "."),
    notes(told.description),
    other_task(told["x-task-id"]),
    parameters(operation),
    market ? model_table(operation) : body ? section("Body", soft(body.type), fields(resolved(body.schema))) : [],
    rules(told["x-rules"]),
    request_section(operation, market ? {} : body?.examples ?? {}).filter(() => !market),
    answers(operation),
    callbacks(operation),
    life(told["x-phases"]),
    prices(told["x-price"]),
    errors(operation),
  ].flat(Infinity).filter(Boolean);
}

function model_page(model) {
  const { schema, operation } = model;
  const example = body_of(operation).examples[model.name];
  const { properties = {} } = schema;
  const others = Object.entries(properties).filter(([, property]) => property.properties === undefined);
  const input = Object.entries(properties).find(([, property]) => property.properties !== undefined);
  return [
    h("h1", null, schema.title),
    h("p", { class: "line" }, h("span", { class: "path" }, model.name)),
    soft(`${schema["x-kind"]} by ${schema["x-vendor"]} · sent to `, link(route_of(operation), operation.path), ` · source: ${schema["x-source"]}`),
    notes(schema.description),
    other_task(schema["x-task-id"]),
    section("Body", fields({ properties: Object.fromEntries(others), required: schema.required })),
    input && section(`Parameters, in ${input[0]}`, fields(resolved(input[1]))),
    rules(schema["x-rules"]),
    example && request_section(operation, { [model.name]: example }),
    prices(schema["x-price"]),
    life(schema["x-phases"]),
    soft("Answers, callbacks and refusals are those of ", link(route_of(operation), operation.id), "."),
  ].flat(Infinity).filter(Boolean);
}

function show() {
  const [kind, name] = location.hash.slice(2).split("/").map(decodeURIComponent);
  const thing = kind === "op" ? operations.get(name) : kind === "model" ? models.get(name) : undefined;
  let content;
  if (thing) content = kind === "op" ? operation_page(thing) : model_page(thing);
  else if (kind) content = [h("h1", null, "Not here"), h("p", null, "The document has no ", code(name ?? kind), ". ", link("", "All there is"))];
  else content = overview();
  page.replaceChildren(...content);
  document.title = `${thing?.told?.summary ?? thing?.schema?.title ?? "API"} – kiegate`;
  mark_current();
}

document.getElementById("browse").addEventListener("click", (event) => {
  event.currentTarget.setAttribute("aria-expanded", String(side.classList.toggle("open")));
});
search.addEventListener("input", show_list);
addEventListener("hashchange", () => {
  side.classList.remove("open");
  document.getElementById("browse").setAttribute("aria-expanded", "false");
  show();
  scrollTo(0, 0);
  page.focus({ preventScroll: true });
});

try {
  const response = await fetch("/docs/openapi.json");
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  read(await response.json());
  show_list();
  show();
} catch (error) {
  page.replaceChildren(h("p", { class: "error" }, `The document cannot be shown: ${error.message}`));
}
