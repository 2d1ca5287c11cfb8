/**
 * Readiness of many descriptors (epoll(7)) for code that makes its system calls itself: the event loop watches one
 * descriptor, that of the epoll set, and a turn of it hands out what is ready. Costs no object a descriptor and no
 * garbage an event.
 */
import koffi from 'koffi';
import { SOCK_CLOEXEC, SystemCallError, watchReadable } from './ffi.ts';

const libc = koffi.load(null);
const cEpollCreate = libc.func('int epoll_create1(int flags)');
const cEpollCtl = libc.func('int epoll_ctl(int epfd, int op, int fd, void *event)');
const cEpollWait = libc.func('int epoll_wait(int epfd, void *events, int maxevents, int timeout)');

export const EPOLLIN = 0x001;
export const EPOLLOUT = 0x004;
/** This and `EPOLLHUP` are told without being asked for. */
export const EPOLLERR = 0x008;
export const EPOLLHUP = 0x010;

const EPOLL_CTL_ADD = 1;
const EPOLL_CTL_DEL = 2;
const EPOLL_CTL_MOD = 3;

/** struct epoll_event is packed on x86 only (uapi/linux/eventpoll.h). */
const packed = process.arch === 'x64' || process.arch === 'ia32';
const eventSize = packed ? 12 : 16;
const dataAt = packed ? 4 : 8;
const batch = 256;
/** Milliseconds of one turn of the event loop that may go into what is ready; the rest waits for the next turn. */
const slice = 8;

export interface Watcher {
  /** Level-triggered: comes again as long as it holds. `events`: a set of the bits above. */
  ready(events: number): void;
}

class EpollSet {
  readonly #fd: number;
  /** By descriptor. */
  readonly #watchers: (Watcher | undefined)[] = [];
  /** By descriptor: how often it has been added, so that an event for one that was closed meets no other. */
  readonly #turns: number[] = [];
  readonly #event = Buffer.alloc(eventSize);
  readonly #events = Buffer.alloc(eventSize * batch);
  #count = 0;
  #stop: (() => void) | undefined;

  constructor() {
    this.#fd = cEpollCreate(SOCK_CLOEXEC) as number;
    if (this.#fd < 0) throw new SystemCallError('epoll_create1', koffi.errno());
  }

  add(fd: number, events: number, watcher: Watcher): void {
    this.#turns[fd] = ((this.#turns[fd] ?? 0) + 1) & 0x7fffffff;
    this.#control(EPOLL_CTL_ADD, fd, events);
    this.#watchers[fd] = watcher;
    if (this.#count++ === 0) this.#stop = watchReadable(this.#fd, () => this.#turn());
  }

  modify(fd: number, events: number): void {
    this.#control(EPOLL_CTL_MOD, fd, events);
  }

  remove(fd: number, closes: boolean): void {
    if (this.#watchers[fd] === undefined) return;
    this.#watchers[fd] = undefined;
    if (!closes) this.#control(EPOLL_CTL_DEL, fd, 0);
    if (--this.#count > 0) return;
    this.#stop?.();
    this.#stop = undefined;
  }

  #control(operation: number, fd: number, events: number): void {
    this.#event.writeUInt32LE(events, 0);
    this.#event.writeUInt32LE(fd, dataAt);
    this.#event.writeUInt32LE(this.#turns[fd] ?? 0, dataAt + 4);
    if ((cEpollCtl(this.#fd, operation, fd, this.#event) as number) < 0)
      throw new SystemCallError('epoll_ctl', koffi.errno());
  }

  #turn(): void {
    const end = performance.now() + slice;
    const events = this.#events;
    do {
      const count = cEpollWait(this.#fd, events, batch, 0) as number;
      for (let i = 0, at = 0; i < count; i++, at += eventSize) {
        const fd = events.readUInt32LE(at + dataAt);
        if (events.readUInt32LE(at + dataAt + 4) !== this.#turns[fd]) continue;
        this.#watchers[fd]?.ready(events.readUInt32LE(at));
      }
      if (count < batch) return;
    } while (performance.now() < end);
  }
}

let set: EpollSet | undefined;

/** Calls `watcher` from the event loop when `fd` is ready; keeps the process alive. Throws SystemCallError. */
export function watchDescriptor(fd: number, events: number, watcher: Watcher): void {
  set ??= new EpollSet();
  set.add(fd, events, watcher);
}

/** Changes what a watched descriptor is watched for. */
export function changeWatch(fd: number, events: number): void {
  set?.modify(fd, events);
}

/** Does nothing where it is not watched. */
export function unwatchDescriptor(fd: number): void {
  set?.remove(fd, false);
}

/** As `unwatchDescriptor`, for one that is closed right afterwards: the kernel then takes it out of the set itself. */
export function forgetDescriptor(fd: number): void {
  set?.remove(fd, true);
}
