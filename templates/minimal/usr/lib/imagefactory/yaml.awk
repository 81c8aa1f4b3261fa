# The little of YAML that NoCloud's meta-data and a simple #cloud-config use,
# in the output format of json.awk: top level "key: value", and lists of plain
# values below a top level key. Deeper structures are passed over.
{ sub(/\r$/, "") }
/^[ \t]*(#|$)/ || /^(---|\.\.\.)/ { next }
/^[A-Za-z0-9_.-]+:([ \t]|$)/ {
    key = $0; sub(/:.*/, "", key)
    text = $0; sub(/^[^:]*:[ \t]*/, "", text)
    n = 0
    if (text != "") emit(key, text); else print key "\tlist\t"
    next
}
/^[ \t]*-[ \t]+/ && key != "" { text = $0; sub(/^[ \t]*-[ \t]+/, "", text); emit(key "/" n++, text) }

function emit(path, text,   q) {
    q = substr(text, 1, 1)
    if (q == "\"" || q == "'") { text = substr(text, 2); if (index(text, q)) text = substr(text, 1, index(text, q) - 1) }
    else { sub(/[ \t]+#.*/, "", text); sub(/[ \t]+$/, "", text) }
    gsub(/\\/, "\\\\", text)
    gsub(/\t/, "\\t", text)
    print path "\tstring\t" text
}
