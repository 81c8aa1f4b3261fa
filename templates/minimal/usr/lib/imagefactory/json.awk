# Flattens JSON: one line per scalar, "path<TAB>type<TAB>value".
#   {"a": [true, {"b c": "x\ny"}]}  ->  a/0 <TAB> literal <TAB> true
#                                       a/1/b c <TAB> string <TAB> x\ny
# In values and keys a backslash, newline, tab and carriage return are written
# \\ \n \t \r (printf %b undoes it); a "/" within a key is written \s.
# Anything that is not JSON ends with a message on stderr and exit status 1.
#
# The quotation mark is the record separator: strings and the text between them
# then arrive in turn, and the work stays linear in the size of the input.
# Feed it with one newline added at the end, so that a last string is closed.

BEGIN {
    RS = "\""
    MAX_DEPTH = 64
    in_string = 0; depth = 0; state = "value"
    path[0] = ""
    for (i = 0; i < 16; i++) hex[substr("0123456789abcdef", i + 1, 1)] = i
}

function fail(why) {
    failed = 1
    print "json: " why " (record " NR ")" > "/dev/stderr"
    exit 1
}

function hex4(s,   i, n) {
    s = tolower(s)
    if (s !~ /^[0-9a-f][0-9a-f][0-9a-f][0-9a-f]$/) fail("bad \\u escape")
    n = 0
    for (i = 1; i <= 4; i++) n = n * 16 + hex[substr(s, i, 1)]
    return n
}

function utf8(n) {
    # NUL cannot live in a string of awk or of the shell, a lone surrogate is
    # no character: both become U+FFFD.
    if (n == 0 || (n >= 55296 && n <= 57343)) n = 65533
    if (n == 92) return "\\\\"
    if (n == 10) return "\\n"
    if (n == 9) return "\\t"
    if (n == 13) return "\\r"
    if (n < 128) return sprintf("%c", n)
    if (n < 2048) return sprintf("%c%c", 192 + int(n / 64), 128 + n % 64)
    if (n < 65536)
        return sprintf("%c%c%c", 224 + int(n / 4096), 128 + int(n / 64) % 64, 128 + n % 64)
    return sprintf("%c%c%c%c", 240 + int(n / 262144), 128 + int(n / 4096) % 64,
                   128 + int(n / 64) % 64, 128 + n % 64)
}

# Undoes JSON's escapes, leaving only those named at the top.
function unescape(s,   n, parts, i, out, done, part, code, low, first) {
    if (s !~ /\\/) {
        if (s ~ /[\001-\037]/) fail("control character in a string")
        return s
    }
    if (s ~ /[\001-\037]/) fail("control character in a string")
    n = split(s, parts, /\\/)
    done = ""; out = parts[1]
    for (i = 2; i <= n; i++) {
        # Strings are copied at each join: join in two steps, or a long string
        # with many escapes takes minutes.
        if (length(out) > 2000) { done = done out; out = "" }
        part = parts[i]
        if (part == "") {               # an escaped backslash
            if (i == n) fail("unfinished escape")
            i++
            out = out "\\\\" parts[i]
            continue
        }
        first = substr(part, 1, 1)
        if (first == "u") {
            code = hex4(substr(part, 2, 4))
            low = (i < n && code >= 55296 && code <= 56319 && length(part) == 5 && parts[i + 1] ~ /^u[dD][c-fC-F]/)
            if (low) {
                i++
                code = 65536 + (code - 55296) * 1024 + hex4(substr(parts[i], 2, 4)) - 56320
                part = parts[i]
            }
            out = out utf8(code) substr(part, 6)
        } else {
            if (first == "n") out = out "\\n"
            else if (first == "t") out = out "\\t"
            else if (first == "r") out = out "\\r"
            else if (first == "/") out = out "/"
            else if (first == "Q") out = out "\""
            else if (first == "b") out = out sprintf("%c", 8)
            else if (first == "f") out = out sprintf("%c", 12)
            else fail("unknown escape")
            out = out substr(part, 2)
        }
    }
    return done out
}

function here() { return path[depth] }

function emit(type, value) { print here() "\t" type "\t" value }

function value_done() { state = depth ? "comma" : "end" }

function child(name) { return path[depth - 1] (depth > 1 ? "/" : "") name }

function open_container(kind) {
    if (state != "value" && state != "first") fail("unexpected " kind)
    if (++depth > MAX_DEPTH) fail("nested too deeply")
    kinds[depth] = kind
    if (kind == "[") { count[depth] = 0; path[depth] = child(0); state = "first" }
    else { path[depth] = ""; state = "firstkey" }
}

function close_container(kind) {
    if (!depth || kinds[depth] != kind) fail("unexpected close of " kind)
    if (state != "comma" && state != "first" && state != "firstkey") fail("unfinished " kind)
    depth--
    value_done()
}

function string(s) {
    s = unescape(s)
    if (state == "key" || state == "firstkey") {
        gsub(/\//, "\\s", s)
        path[depth] = child(s)
        state = "colon"
    } else if (state == "value" || state == "first") {
        emit("string", s)
        value_done()
    } else fail("unexpected string")
}

function punctuation(t) {
    if (t == "{" || t == "[") open_container(t)
    else if (t == "}") close_container("{")
    else if (t == "]") close_container("[")
    else if (t == ":") {
        if (state != "colon") fail("unexpected colon")
        state = "value"
    } else if (t == ",") {
        if (state != "comma") fail("unexpected comma")
        if (kinds[depth] == "[") { path[depth] = child(++count[depth]); state = "value" }
        else state = "key"
    } else {
        if (state != "value" && state != "first") fail("unexpected word")
        if (t == "true" || t == "false" || t == "null") emit("literal", t)
        else if (t ~ /^-?(0|[1-9][0-9]*)(\.[0-9]+)?([eE][-+]?[0-9]+)?$/) emit("number", t)
        else fail("not JSON")
        value_done()
    }
}

function between(text,   n, tokens, i) {
    gsub(/[][{},:]/, " & ", text)
    n = split(text, tokens, /[ \t\r\n]+/)
    for (i = 1; i <= n; i++) if (tokens[i] != "") punctuation(tokens[i])
}

{
    if (!in_string) {
        if (NR == 1) sub(/^\357\273\277/, "")      # a byte order mark
        between($0)
        in_string = 1; text = ""; tail = ""
        next
    }
    # An odd number of backslashes at the end: the quotation mark belongs to the
    # string. It is noted as \Q, an escape that JSON does not have.
    if ($0 ~ /\\Q/) {
        probe = $0; gsub(/\\\\/, "", probe)
        if (probe ~ /\\Q/) fail("unknown escape")
    }
    match($0, /\\*$/)
    if (RLENGTH % 2) {
        tail = tail $0 "Q"
        if (length(tail) > 2000) { text = text tail; tail = "" }
        next
    }
    string(text tail $0)
    in_string = 0
}

END {
    if (failed) exit 1
    # After the newline added at the end the last record is text, so a string
    # must be awaited now.
    if (!in_string || text tail != "") { print "json: unfinished string" > "/dev/stderr"; exit 1 }
    if (state != "end") { print "json: unfinished or empty" > "/dev/stderr"; exit 1 }
}
