/** Spill files: where messages go that find no room in memory, and what a process leaves for the sidecar. */
'use strict';

const { randomBytes } = require('node:crypto');
const fs = require('node:fs');
const path = require('node:path');

const { numbered } = require('./encoding.js');

const FILE_MAX = 1 << 20; // bytes of a spill file
const FILES = 64;
const STREAMS_NAMED = 1000; // spill files that a stats line names, the newest

const { O_APPEND, O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = fs.constants;

/**
 * A file of whole lines with a client of its own. Node.js has no flock, so nothing but its age tells others that it has
 * an owner: it is opened, appended to and closed at each write, and then looked at whether it is still there.
 */
class SpillFile {
  constructor(directory, service, client, last = 0) {
    this.client = client;
    this.last = last; // seq of its last message
    this.count = 0;
    this.size = 0;
    this.path = path.join(directory, `${service}.${process.pid}.${client}.ldjson`);
    const fd = fs.openSync(this.path, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o660);
    try {
      fs.fchmodSync(fd, 0o660); // for the group too: in a setgid spill dir that is the sidecar's
      this.inode = fs.fstatSync(fd).ino;
    } finally {
      fs.closeSync(fd);
    }
  }

  /** Write lines; how many got there whole, or -1 when somebody has taken the file meanwhile. */
  append(lines) {
    const data = Buffer.from(lines.join(''));
    let whole = 0;
    try {
      const fd = fs.openSync(this.path, O_WRONLY | O_APPEND | O_NOFOLLOW);
      try {
        const written = fs.writeSync(fd, data);
        whole = written ? data.lastIndexOf(10, written - 1) + 1 : 0;
        if (whole < written) fs.ftruncateSync(fd, this.size + whole);
      } finally {
        fs.closeSync(fd);
      }
    } catch {
      // the disk is full, or the file is gone, which is seen next
    }
    if (!this.isHere()) return -1;
    const done = whole === data.length ? lines.length : data.subarray(0, whole).toString().split('\n').length - 1;
    this.size += whole;
    this.count += done;
    this.last += done;
    return done;
  }

  isHere() {
    try {
      return fs.lstatSync(this.path).ino === this.inode;
    } catch {
      return false;
    }
  }

  rename(to) {
    try {
      fs.renameSync(this.path, to);
      this.path = to;
      return true;
    } catch {
      return false;
    }
  }

  /** Take it for sending: its lines, or nothing when somebody else has. */
  claim() {
    if (!this.isHere() || !this.rename(`${this.path}.taken`)) return undefined;
    try {
      return fs.readFileSync(this.path, 'utf8').split('\n').slice(0, -1).map((line) => `${line}\n`);
    } catch {
      return undefined;
    }
  }

  /** Give a claimed file to the one that takes it up. */
  leave() {
    this.rename(this.path.replace(/\.taken$/, ''));
  }

  remove() {
    try {
      fs.unlinkSync(this.path);
    } catch {
      // somebody else has
    }
  }
}

/** Not mkdir's `recursive`, which never returns where no directory can be made, as below /proc. */
function makeDirectory(directory) {
  const parent = path.dirname(directory);
  if (fs.existsSync(directory)) return;
  if (!fs.existsSync(parent)) makeDirectory(parent);
  fs.mkdirSync(directory, { mode: 0o700 });
}

/** An SDK's spill files, oldest first: the newest is written, only closed ones are sent. */
class Spool {
  constructor(directory, service) {
    this.files = [];
    this.streams = []; // all that there ever were, for the stats line
    this.writing = false; // into the newest
    this.taken = 0; // messages in files that somebody took while they were written
    this.retryAt = 0;
    this.directory = directory;
    this.service = service;
  }

  /** Append messages; how many there was room for. */
  write(bodies) {
    let done = 0;
    while (done < bodies.length && performance.now() >= this.retryAt) {
      if (!this.writing && !this.begin()) break;
      const file = this.files[this.files.length - 1];
      const lines = this.#fitting(bodies, done, file);
      const written = lines.length ? file.append(lines) : 0;
      done += written < 0 ? this.#writeAgain(file, lines) : written;
      this.writing = done === bodies.length;
      if (this.files[this.files.length - 1]?.count === 0) this.#giveUp(); // the disk is full
    }
    return done;
  }

  #fitting(bodies, from, file) {
    const lines = [];
    let { size } = file;
    for (let index = from; index < bodies.length; index += 1) {
      const line = numbered(bodies[index], file.client, file.last + lines.length + 1);
      size += Buffer.byteLength(line);
      if (size > FILE_MAX) break;
      lines.push(line);
    }
    return lines;
  }

  /** Whether somebody who took the file read the last lines is unknown: a file of the same stream has them again. */
  #writeAgain(file, lines) {
    this.taken += file.count;
    this.files.pop();
    const again = this.open(file.client, file.last);
    if (!again) return 0;
    this.#add(again);
    return Math.max(0, again.append(lines));
  }

  begin() {
    // one more is being sent
    const file = this.files.length < FILES - 1 ? this.open(randomBytes(8).toString('hex')) : undefined;
    if (file) this.#add(file);
    else this.retryAt = performance.now() + 1000;
    return file !== undefined;
  }

  #add(file) {
    this.files.push(file);
    this.streams = [...this.streams.filter(({ client }) => client !== file.client), file].slice(-STREAMS_NAMED);
  }

  #giveUp() {
    this.retryAt = performance.now() + 1000;
    this.files.pop().remove();
  }

  /** Write what could not be delivered, with the seqs it has, to a file of the SDK's own client; how many lines. */
  leave(client, entries) {
    const file = entries.length ? this.open(client) : undefined;
    if (!file) return 0;
    let room = FILES * FILE_MAX - this.files.reduce((sum, { size }) => sum + size, 0);
    const fitting = entries.filter((entry) => (room -= entry.bytes) >= 0);
    const written = Math.max(0, file.append(fitting.map(({ line }) => line)));
    if (!written) file.remove();
    return written;
  }

  open(client, last) {
    const own = `/tmp/wafermon-${process.getuid()}`;
    let directory = this.directory ?? '/var/spool/wafermon';
    try {
      if (!this.directory) fs.accessSync(directory, fs.constants.W_OK | fs.constants.X_OK);
    } catch {
      directory = own;
    }
    try {
      makeDirectory(directory);
      const { mode, uid } = fs.lstatSync(directory);
      // somebody else has laid it there
      if (directory === own && ((mode & 0o170022) !== 0o040000 || uid !== process.getuid())) return undefined;
      return new SpillFile(directory, this.service, client, last);
    } catch {
      return undefined;
    }
  }
}

module.exports = { Spool };
