/** Kernel settings under /proc/sys and /sys, written only where they differ. */
import { closeSync, constants, openSync, readFileSync, readdirSync, writeSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { join } from 'node:path';
import type { Logger } from '../log/logger.ts';

/** What the configuration says about conntrack; durations in milliseconds, 0 = leave the kernel's value alone. */
export interface ConntrackSettings {
  /** 0 or less = leave the limit and the hash size alone. */
  readonly maxPerCore: number;
  readonly min: number;
  readonly tcpEstablishedTimeout: number;
  readonly tcpCloseWaitTimeout: number;
  /** False writes nothing. */
  readonly tcpBeLiberal: boolean;
  readonly udpTimeout: number;
  readonly udpStreamTimeout: number;
}

export interface SysctlOptions {
  readonly log: Logger;
  /** Where /proc and /sys are looked for: `/`, but for tests. */
  readonly root?: string;
  /** Number of CPUs; counted if absent. */
  readonly cpus?: number;
}

/** The most that maxPerCore x CPUs may come to. */
const scaledMax = 1_048_576;
const hashsizePath = 'sys/module/nf_conntrack/parameters/hashsize';

/** The number in a sysctl file such as `net/netfilter/nf_conntrack_max`; throws if it cannot be read or is no number. */
export function readSysctl(name: string, root = '/'): number {
  return readNumber(join(root, 'proc/sys', name));
}

/**
 * Sets a sysctl if it has another value (or cannot be read). Throws if the write fails.
 * @returns true if it was written
 */
export function writeSysctl(name: string, value: number, options: SysctlOptions): boolean {
  return writeNumber(join(options.root ?? '/', 'proc/sys', name), name, value, options.log);
}

/**
 * nf_conntrack_max as configured: maxPerCore x CPUs, at least `min`, and the scaled value at most 1048576 (a larger
 * `min` counts only where the scaled value is below it). 0 = leave it alone.
 */
export function conntrackMax(maxPerCore: number, min: number, cpus: number): number {
  if (maxPerCore <= 0) return 0;
  const scaled = maxPerCore * cpus;
  if (scaled > scaledMax) return scaledMax;
  return scaled > min ? scaled : min;
}

/**
 * Writes the conntrack settings in kube-proxy's order; the first error stops the sequence.
 * @throws Error "could not set conntrack parameters …" with the failed write as its cause
 */
export function applyConntrackSysctls(settings: ConntrackSettings, options: SysctlOptions): void {
  try {
    const max = conntrackMax(settings.maxPerCore, settings.min, options.cpus ?? countCPUs(options.root));
    if (max > 0) {
      writeSysctl('net/netfilter/nf_conntrack_max', max, options);
      ensureHashsize(Math.floor(max / 4), options);
    }
    writeTimeout('tcp_timeout_established', settings.tcpEstablishedTimeout, options);
    writeTimeout('tcp_timeout_close_wait', settings.tcpCloseWaitTimeout, options);
    if (settings.tcpBeLiberal) writeSysctl('net/netfilter/nf_conntrack_tcp_be_liberal', 1, options);
    writeTimeout('udp_timeout', settings.udpTimeout, options);
    writeTimeout('udp_timeout_stream', settings.udpStreamTimeout, options);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`could not set conntrack parameters from kube-proxy configuration: ${reason}`, {
      cause: error,
    });
  }
}

function writeTimeout(name: string, milliseconds: number, options: SysctlOptions): void {
  if (milliseconds > 0)
    writeSysctl(`net/netfilter/nf_conntrack_${name}`, Math.floor(milliseconds / 1000), options);
}

/** The hash table has at least a quarter of the limit's entries, or chains in it get long. */
function ensureHashsize(wanted: number, options: SysctlOptions): void {
  const path = join(options.root ?? '/', hashsizePath);
  if (readNumber(path) >= wanted) return;
  options.log.info('Setting conntrack hashsize', { hashsize: wanted });
  writeFile(path, wanted);
}

/** Lets packets to 127.0.0.0/8 be routed, as node ports on localhost need. Throws if that cannot be set. */
export function allowLocalnetRouting(options: SysctlOptions): void {
  const name = 'net/ipv4/conf/all/route_localnet';
  try {
    if (readSysctl(name, options.root) === 1) return;
  } catch {
    // Not readable: the write below says why, and what for.
  }
  options.log.info(
    'Setting route_localnet=1 so that node ports can be reached on localhost; set iptables.localhostNodePorts or nodePortAddresses to prevent it',
    { sysctl: name },
  );
  try {
    writeFile(join(options.root ?? '/', 'proc/sys', name), 1);
  } catch (error) {
    throw new Error(
      `could not set ${name}=1, which node ports on localhost need: run with the right to write it, or set iptables.localhostNodePorts to false`,
      { cause: error },
    );
  }
}

/** True if conntrack takes TCP packets outside the window for valid; false also where that cannot be read. */
export function conntrackBeLiberal(root = '/'): boolean {
  try {
    return readSysctl('net/netfilter/nf_conntrack_tcp_be_liberal', root) !== 0;
  } catch {
    // conntrack is not loaded: it has its default then, which is 0.
    return false;
  }
}

/** Sets this process's oom_score_adj, with a second try; returns false (after a warning) if both failed. */
export function setOomScoreAdjust(value: number, options: SysctlOptions): boolean {
  const path = join(options.root ?? '/', 'proc/self/oom_score_adj');
  for (let attempt = 1; ; attempt++) {
    try {
      writeFile(path, value);
      return true;
    } catch (error) {
      if (attempt < 2) continue;
      options.log.warn('Failed to apply oomScoreAdj', { value, reason: String(error) });
      return false;
    }
  }
}

/**
 * The machine's online CPUs, from sysfs (a container's quota does not count); what the process may use if sysfs does
 * not tell.
 */
export function countCPUs(root = '/'): number {
  let count = 0;
  try {
    const nodes = join(root, 'sys/devices/system/node');
    const nodeNames = listMatching(nodes, /^node\d+$/);
    for (const node of nodeNames) {
      const directory = join(nodes, node);
      for (const cpu of listMatching(directory, /^cpu\d+$/)) if (hasTopology(join(directory, cpu))) count++;
    }
    if (nodeNames.length === 0) count = listMatching(join(root, 'sys/devices/system/cpu'), /^cpu\d+$/).length;
  } catch {
    // No sysfs here: the fallback below is as good as it gets.
    count = 0;
  }
  return count >= 1 ? count : availableParallelism();
}

function listMatching(directory: string, pattern: RegExp): string[] {
  try {
    return readdirSync(directory).filter((name) => pattern.test(name));
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return [];
    throw error;
  }
}

/** An offline CPU has no topology. */
function hasTopology(cpu: string): boolean {
  try {
    readNumber(join(cpu, 'topology/core_id'));
    readNumber(join(cpu, 'topology/physical_package_id'));
    return true;
  } catch {
    // Exactly what is asked: it has none.
    return false;
  }
}

function writeNumber(path: string, name: string, value: number, log: Logger): boolean {
  try {
    if (readNumber(path) === value) return false;
  } catch {
    // Counts as different: if the write fails too, that error says more.
  }
  log.info('Set sysctl', { sysctl: name, value });
  writeFile(path, value);
  return true;
}

function readNumber(path: string): number {
  const text = readFileSync(path, 'utf8').trim();
  if (!/^-?\d+$/.test(text)) throw new Error(`${path} holds "${text.slice(0, 40)}" instead of a number`);
  return Number(text);
}

function writeFile(path: string, value: number): void {
  try {
    // Without O_CREAT: a missing file must be an error, never a new file.
    const fd = openSync(path, constants.O_WRONLY | constants.O_TRUNC);
    try {
      writeSync(fd, String(value));
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(`cannot write ${value} to ${path}: ${reason}`, { cause: error });
  }
}
