#!/usr/bin/env bash
# Prints the home of a Java that runs OpenSearch of the major version $1, or fails: 2 needs Java 11, 3 needs Java 21.
least=11
[ "${1:-2}" -lt 3 ] || least=21
for java in "$(command -v java)" /usr/lib/jvm/*/bin/java; do
	java=$(readlink -f "$java") && [ -x "$java" ] || continue
	have=$("$java" -version 2>&1 | sed -n '1s/.*version "\([0-9]*\).*/\1/p')
	[ "${have:-0}" -ge $least ] || continue
	dirname "$(dirname "$java")"
	exit 0
done
exit 1
