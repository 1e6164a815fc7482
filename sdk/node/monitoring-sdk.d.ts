/** Values of a context: whatever JSON can say; bigints, dates, errors, maps and sets too. Cut at 8 levels. */
export type Context = { readonly [key: string]: unknown } | object;

/** Tags are strings and numbers; null is left out, anything else becomes text. */
export type Tags = { readonly [key: string]: unknown };

/** `warn`, `err`, `fatal`, upper case and the numbers 10 to 50 (10 is debug, 50 critical) are taken too. */
export type Level = 'debug' | 'info' | 'warning' | 'error' | 'critical' | 'warn' | 'err' | 'fatal' | Uppercase<string> | number;

export type Kind = 'gauge' | 'counter';

export interface Options {
  /** `tcp://host:port`, `unix:///path` or `tls://host:port`; else WAFERMON_URL, else `tcp://127.0.0.1:7411`. */
  url?: string | null;
  /** The trace of everything that names no other; else WAFERMON_TRACE_ID, TRACEPARENT. */
  traceId?: string | null;
  /** How many messages may wait in memory; else WAFERMON_BUFFER, else 1000. */
  buffer?: number | null;
  /** Where messages go that find no room there; else WAFERMON_SPILL_DIR, else a default. */
  spillDir?: string | null;
  /** What the sidecar's listener asks for; else WAFERMON_TOKEN. */
  token?: string | null;
}

export interface Resource {
  /** Percent of one core. */
  cpu?: number | null;
  /** Resident bytes. */
  mem?: number | null;
  /** Bytes read and written since the process began. */
  disk?: number | null;
  /** Bytes sent and received since the process began. */
  net?: number | null;
}

export interface SpanOptions {
  traceId?: string | null;
  tags?: Tags | null;
}

/** What a logger's record keeps of itself, for adapters. */
export interface LogRecord {
  /** Milliseconds since the epoch, with fractions; now where it is missing. */
  time?: number;
  traceId?: string;
  /** 16 hex digits; counts only beside a trace id. */
  spanId?: string;
}

/** At rest: called = acked + rejected + dropped + waiting + handed_over. */
export interface Stats {
  state: 'connected' | 'disconnected' | 'overflow';
  called: number;
  sent: number;
  acked: number;
  rejected: number;
  dropped: number;
  spilled: number;
  /** Unsent, unacknowledged, or in spill files that are still ours. */
  waiting: number;
  /** In spill files that the sidecar took up or that close() left for it. */
  handed_over: number;
  resent: number;
  reconnects: number;
}

/** One application's line to its sidecar. No call waits for the network or throws because of it. */
export class MonitoringSDK {
  /**
   * @param service who is speaking: 1-128 of `A-Z a-z 0-9 . _ - :`; else WAFERMON_SERVICE, OTEL_SERVICE_NAME
   * @throws {TypeError} no service, or one that can't be
   * @throws {RangeError} a buffer or a trace id that can't be
   */
  constructor(service?: string | null, options?: Options);

  /**
   * Something happened.
   * @throws {RangeError} an unknown level
   * @throws {TypeError} no message; a context that is no object
   */
  logEvent(level: Level, message: unknown, context?: Context | null, record?: LogRecord): void;

  /**
   * A measured number. A counter's value is an increment: how many more since the last call.
   * @param unit UCUM where there is one
   * @throws {TypeError} no name; a value that is no number
   * @throws {RangeError} another kind
   */
  logMetric(name: string, value: number | bigint, unit?: string | null, tags?: Tags | null, kind?: Kind | null): void;

  /**
   * How far a job is.
   * @param percent 0 to 100
   * @param status `running` by default; `done`, `failed` and `cancelled` end the job
   * @throws {RangeError} another percent, a bad job id or status
   * @throws {TypeError} a percent that is no number
   */
  logProgress(jobId: string, percent: number, status?: string | null): void;

  /** What a process uses; without an argument, this one. */
  logResource(resource?: Resource | null): void;

  /**
   * Open a span inside the current one and make it the current one, here and in what is started from here.
   * @returns its id: 16 hex digits
   */
  startSpan(name: string, traceId?: string | null, tags?: Tags | null): string;

  /**
   * Close a span; `tags` join those of its start.
   * @throws {RangeError} a span that is not open; another status
   */
  endSpan(spanId: string, status?: 'ok' | 'error' | null, tags?: Tags | null): void;

  /**
   * A span around a function: it ends when that returns, or when the promise that it returns settles, with status
   * `error` when it throws or rejects.
   * @returns what the function returns
   */
  span<T>(name: string, work: (spanId: string) => T): T;
  span<T>(name: string, options: SpanOptions, work: (spanId: string) => T): T;

  /** From here on, what is logged belongs to this trace; a span that is open ends in its own. */
  setTraceId(traceId: string): void;

  /** The environment for a child process, so that it falls into the current trace, under the current span. */
  childEnv(): NodeJS.ProcessEnv;

  getStats(): Stats;

  /**
   * Wait until nothing is waiting.
   * @param timeout milliseconds, 5000 by default
   * @returns whether it got there
   */
  flush(timeout?: number): Promise<boolean>;

  /**
   * Deliver what is waiting and leave the rest in a spill file for the sidecar. What is called later counts as dropped.
   * @param timeout milliseconds, 2000 by default; at once where the sidecar is not there
   */
  close(timeout?: number): Promise<void>;
}
