/** Values as JSON, messages as lines, and what calls check of their arguments: no sockets, no files. */
'use strict';

const { inspect } = require('node:util');

const BODY_MAX = 65_536 - 64; // bytes; the rest of a line is for client and seq

const EXACT = 2 ** 53;
const DEPTH = 8; // containers nested deeper become text
const NODES = 32_768; // after so many values a context is not copied further: it can't fit into a line
const LATER_MAX = 8192; // characters of a message that may wait without being encoded
const SHORTEST = 64; // cutting strings below so many characters gains nothing
const NEEDS_CARE = /[\u0000-\u001f"\\\ud800-\udfff]/;
const NEVER_SENT = /[\u0000\ud800-\udfff]/gu; // NUL and lone surrogates

/** A message type: how its line begins, and the keys of its own fields; context or tags come last. */
function kind(name, ...fields) {
  return { head: `{"type":"${name}","ts":`, keys: fields.map((field) => `,"${field}":`) };
}

const EVENT = kind('event', 'level', 'message', 'context');
const METRIC = kind('metric', 'name', 'value', 'unit', 'kind', 'tags');
const PROGRESS = kind('progress', 'job_id', 'percent', 'status');
const RESOURCE = kind('resource', 'cpu', 'mem', 'disk', 'net');
const SPAN_START = kind('span_start', 'name', 'parent_id', 'tags');
const SPAN_END = kind('span_end', 'status', 'name', 'start', 'duration', 'parent_id', 'tags');
const STATS = kind('stats', 'called', 'dropped', 'unsent', 'last', 'streams', 'final');

function quote(text) {
  return NEEDS_CARE.test(text) ? JSON.stringify(text.replace(NEVER_SENT, '\ufffd')) : `"${text}"`;
}

/** The text's first characters, without half of a surrogate pair at their end. */
function cut(text, most) {
  if (text.length <= most) return text;
  const last = text.charCodeAt(most - 1);
  return text.slice(0, last >= 0xd800 && last < 0xdc00 ? most - 1 : most);
}

/** JSON of a value of plain types only, its strings cut to so many characters. What JSON can't say becomes null. */
function json(value, most) {
  if (typeof value === 'string') return quote(cut(value, most));
  if (typeof value === 'number') {
    if (!Number.isFinite(value)) return 'null';
    // a reader would take the digits of a large double for those of an integer
    return Math.abs(value) > EXACT ? value.toExponential() : String(value);
  }
  if (typeof value === 'boolean') return String(value);
  if (typeof value === 'bigint') return value > EXACT || value < -EXACT ? `"${value}"` : String(value);
  if (Array.isArray(value)) return `[${value.map((item) => json(item, most)).join(',')}]`;
  return typeof value === 'object' && value !== null ? jsonObject(value, most) : 'null';
}

function jsonObject(object, most) {
  let text = '{';
  let comma = '';
  for (const key of Object.keys(object)) {
    const value = object[key];
    if (value !== undefined) {
      text += `${comma}${quote(key)}:${json(value, most)}`;
      comma = ',';
    }
  }
  return `${text}}`;
}

/** Any value as text, whatever its own methods do. */
function toText(value) {
  try {
    if (ArrayBuffer.isView(value)) return Buffer.from(value.buffer, value.byteOffset, value.byteLength).toString();
    if (typeof value !== 'object' || value instanceof Error) return String(value);
    return inspect(value, { depth: 1, breakLength: Infinity, maxArrayLength: 10, maxStringLength: 200 });
  } catch {
    return `<${typeof value}>`;
  }
}

/** A deep copy in plain types, cut at depth 8 and after `left.nodes` values. */
function plain(value, depth, left) {
  left.nodes -= 1;
  if (typeof value === 'symbol' || typeof value === 'function') return toText(value);
  if (typeof value !== 'object' || value === null) return value;
  try {
    return plainObject(value, depth, left);
  } catch {
    return toText(value);
  }
}

function plainObject(value, depth, left) {
  if (value instanceof Uint8Array) return toText(value);
  if (typeof value.toJSON === 'function') {
    const told = value.toJSON();
    if (told !== value) return plain(told, depth, left);
  }
  if (value instanceof Number || value instanceof String || value instanceof Boolean) return value.valueOf();
  if (depth > DEPTH) return toText(value);
  if (value instanceof Map) return plainEntries(value, depth, left);
  if (Array.isArray(value) || value instanceof Set || (ArrayBuffer.isView(value) && Symbol.iterator in value)) {
    const items = [];
    for (const item of value) {
      if (left.nodes <= 0) break;
      items.push(plain(item, depth + 1, left));
    }
    return items;
  }
  const entries = Object.keys(value).slice(0, Math.max(0, left.nodes)).map((key) => [key, value[key]]);
  if (value instanceof Error) entries.unshift(['name', value.name], ['message', value.message], ['stack', value.stack]);
  return plainEntries(entries, depth, left);
}

function plainEntries(entries, depth, left) {
  const copy = Object.create(null); // where `__proto__` is a key like any other
  for (const [key, item] of entries) {
    if (left.nodes <= 0) break;
    copy[typeof key === 'string' ? key : toText(key)] = plain(item, depth + 1, left);
  }
  return copy;
}

function isFlat(fields) {
  for (const key in fields) {
    const type = typeof fields[key];
    if (type !== 'string' && type !== 'number' && type !== 'boolean' && fields[key] !== null) return false;
  }
  return true;
}

/** A copy of a context, in plain types. A flat one, as most are, needs no more than what a spread does. */
function checkedFields(fields) {
  if (fields === undefined || fields === null) return undefined;
  if (typeof fields !== 'object' || Array.isArray(fields) || ArrayBuffer.isView(fields)) {
    throw new TypeError(`context and tags are objects, not ${toText(fields)}`);
  }
  try {
    const prototype = Object.getPrototypeOf(fields);
    const copy = prototype === Object.prototype || prototype === null ? { ...fields } : undefined;
    if (copy && isFlat(copy)) return copy;
  } catch {
    // a getter that throws
  }
  const copy = plain(fields, 1, { nodes: NODES });
  return typeof copy === 'object' && copy !== null ? copy : { value: copy };
}

/** Tags are strings and numbers: null is left out, and whatever else comes along becomes text. */
function checkedTags(tags) {
  const fields = checkedFields(tags);
  if (!fields) return undefined;
  const copy = Object.create(null);
  for (const [key, tag] of Object.entries(fields)) {
    const type = typeof tag;
    const told = type === 'string' || type === 'number' || type === 'bigint';
    if (tag !== null && tag !== undefined) copy[key] = told ? tag : json(tag, BODY_MAX);
  }
  return copy;
}

function joined(type, start, values, most, end) {
  let text = start;
  for (let index = 0; index < values.length; index += 1) {
    if (values[index] !== undefined && values[index] !== null) text += type.keys[index] + json(values[index], most);
  }
  return text + end;
}

/** A message without its client, its seq and its closing brace, short enough for any line. */
function encode(type, ts, origin, values) {
  const start = type.head + ts + origin;
  const line = joined(type, start, values, BODY_MAX, '');
  const fits = line.length * 3 <= BODY_MAX || Buffer.byteLength(line) <= BODY_MAX; // a character is at most 3 bytes
  return fits ? line : shortened(type, start, values);
}

/** Characters of values that may be encoded later, more or less; undefined where they are nested, or long. */
function sizeOf(values) {
  let size = 0;
  for (const value of values) {
    if (typeof value === 'string') size += value.length;
    else if (typeof value === 'object' && value !== null) size += sizeOfFlat(value);
  }
  return size < LATER_MAX ? size : undefined;
}

function sizeOfFlat(fields) {
  let size = 0;
  for (const key in fields) {
    const value = fields[key];
    if (typeof value === 'object' && value !== null) return Infinity;
    size += key.length + (typeof value === 'string' ? value.length : 8);
  }
  return size;
}

/** The longest strings are cut, to the greatest length with which all fits. Where that won't do, the context goes. */
function shortened(type, start, values) {
  const body = (most) => joined(type, start, values, most, ',"truncated":true');
  let least = SHORTEST;
  let most = BODY_MAX;
  if (Buffer.byteLength(body(least)) > BODY_MAX) values[values.length - 1] = undefined;
  while (most - least > 1) {
    const middle = (least + most) >> 1;
    if (Buffer.byteLength(body(middle)) <= BODY_MAX) least = middle;
    else most = middle;
  }
  return body(least);
}

function numbered(body, client, seq) {
  return `${body},"client":"${client}","seq":${seq}}\n`;
}

const LEVELS = new Map([
  ...['debug', 'info', 'warning', 'error', 'critical'].map((level) => [level, level]),
  ...[['warn', 'warning'], ['err', 'error'], ['fatal', 'critical']],
]);
const NUMBERED_LEVELS = ['', 'debug', 'info', 'warning', 'error', 'critical']; // by tens, as Python's logging has them

function checkedLevel(level) {
  const known = LEVELS.get(level) ?? LEVELS.get(String(level).toLowerCase());
  if (known) return known;
  if (/^(?:[1-4][0-9]|50)$/.test(String(level))) return NUMBERED_LEVELS[Math.floor(Number(level) / 10)];
  throw new RangeError(`unknown level: ${toText(level)}; one of debug, info, warning, error, critical`);
}

function checkedTraceId(traceId) {
  if (typeof traceId !== 'string') throw new TypeError(`a trace id is a string, not ${toText(traceId)}`);
  if (!/^[!-~]{1,128}$/.test(traceId)) {
    throw new RangeError(`a trace id is 1 to 128 printable ASCII characters without space, not ${quote(traceId)}`);
  }
  return traceId;
}

function checkedName(name) {
  if ((typeof name !== 'string' && !(name instanceof Uint8Array)) || !name.length) {
    throw new TypeError(`a name is a non-empty string, not ${toText(name)}`);
  }
  return toText(name);
}

/** The value of a field that is a number; what JSON has no number for is spelled out. */
function checkedNumber(value) {
  if (typeof value !== 'number' && typeof value !== 'bigint') throw new TypeError(`not a number: ${toText(value)}`);
  const number = Number(value);
  return Number.isFinite(number) ? number : String(number);
}

module.exports = {
  BODY_MAX,
  EVENT,
  METRIC,
  PROGRESS,
  RESOURCE,
  SPAN_END,
  SPAN_START,
  STATS,
  checkedFields,
  checkedLevel,
  checkedName,
  checkedNumber,
  checkedTags,
  checkedTraceId,
  encode,
  json,
  numbered,
  quote,
  sizeOf,
  toText,
};
