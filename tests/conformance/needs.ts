/** Why a behaviour is not for a subject: what the kind or the environment does not have. */
import type { Conformance } from "./bridge.ts";

export const needsProxy = (subject: Conformance): string | null =>
  subject.proxied === undefined ? "the environment has no proxy" : null;

export const needsSinkAndProxy = (subject: Conformance): string | null =>
  needsProxy(subject) ?? (subject.module.capabilities.sink ? null : "the kind has no sink");

export const needsBoth = ({ module }: Conformance): string | null => {
  if (!module.capabilities.source) return "the kind has no source";
  return module.capabilities.sink ? null : "the kind has no sink";
};

export const needsBothAndProxy = (subject: Conformance): string | null =>
  needsSinkAndProxy(subject) ??
  (subject.module.capabilities.source ? null : "the kind has no source");
