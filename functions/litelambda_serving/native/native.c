/* Arrays of numbers in JSON text, straight to the bytes of a tensor: what json.loads and struct.pack make of them.

   Only what is surely right is read here. For anything else - another kind of value, a ragged array, a number out of
   its type's range, text that is not JSON - the functions say no, and Python's own way finds the words for it. */

#define _GNU_SOURCE /* strtod_l */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16, MAX_NUMBER = 1000 };
enum kind { FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64, BOOL };

static const uint8_t SIZES[] = {4, 8, 1, 2, 4, 8, 1, 2, 4, 8, 1}; /* of each kind, in bytes */
static int is_signed(enum kind kind) { return kind <= INT64; }

static const double POWERS[] = {1e0,  1e1,  1e2,  1e3,  1e4,  1e5,  1e6,  1e7,  1e8,  1e9,  1e10, 1e11,
                                1e12, 1e13, 1e14, 1e15, 1e16, 1e17, 1e18, 1e19, 1e20, 1e21, 1e22};
static const int EXACT_POWER = 22;                 /* 10^22 is the last power of ten that is a double */
static const uint64_t EXACT_INTEGER = 1ull << 53;  /* up to here every integer is one */

static int is_space(char c) { return c == ' ' || c == '\n' || c == '\t' || c == '\r'; }

static int is_digit(char c) { return (unsigned char)(c - '0') < 10; }

static const char *skip_spaces(const char *at) {
  while (is_space(*at)) at++;
  return at;
}

/* An array of the text. */
struct span {
  int64_t start, end; /* of its brackets */
  int64_t length;     /* how many entries it has */
  int64_t depth;      /* how deeply its first entries are nested; 1 for a flat array */
};

/* After a number as JSON writes it; NULL where there is none, or one so long that Python may refuse it. */
static const char *after_number(const char *at) {
  const char *start = at;
  at += *at == '-';
  if (!is_digit(*at) || (*at == '0' && is_digit(at[1]))) return NULL;
  while (is_digit(*at)) at++;
  if (*at == '.') {
    if (!is_digit(*++at)) return NULL;
    while (is_digit(*at)) at++;
  }
  if (*at == 'e' || *at == 'E') {
    at++;
    at += *at == '+' || *at == '-';
    if (!is_digit(*at)) return NULL;
    while (is_digit(*at)) at++;
  }
  return at - start <= MAX_NUMBER ? at : NULL;
}

/* Whether an array begins here that is valid JSON and holds numbers, or arrays of them, and nothing else. */
static int measure(const char *text, int64_t start, struct span *found) {
  int64_t depth = 0, deepest = 0, entries = 1;
  const char *at = text + start;
  for (;;) {
    at = skip_spaces(at); /* a value begins here */
    if (*at == '[') {
      if (++depth > MAX_DEPTH) return 0;
      at++;
      continue;
    }
    at = after_number(at);
    if (at == NULL) return 0;
    if (!deepest) deepest = depth;
    for (at = skip_spaces(at); *at == ']'; at = skip_spaces(at)) {
      at++;
      if (--depth == 0) {
        *found = (struct span){start, at - text, entries, deepest};
        return 1;
      }
    }
    if (*at++ != ',') return 0;
    entries += depth == 1;
  }
}

/* The quote that ends the string that begins here; `length` or more where there is none. */
static int64_t end_of_string(const char *text, int64_t at, int64_t length) {
  for (at++; at < length && text[at] != '"'; at++)
    if (text[at] == '\\') at++;
  return at;
}

/* Find arrays of numbers that are values of objects, from the text's start on.

   text: of JSON, `length` bytes and a zero.
   least: bytes of the smallest array that counts.
   found: room for `most` of them.
   Returns how many there are; -1 where that is more than `most`, or a string does not end. */
int64_t find_arrays(const char *text, int64_t length, int64_t least, struct span *found, int64_t most) {
  int64_t count = 0;
  int is_value = 0; /* whether the last token was a colon */
  for (int64_t at = 0; at < length; at++) {
    char c = text[at];
    if (c == '"') {
      at = end_of_string(text, at, length);
      if (at >= length) return -1;
      is_value = 0;
    } else if (c == '[' && is_value) {
      struct span array;
      is_value = 0;
      if (!measure(text, at, &array) || array.end - array.start < least) continue;
      if (count == most) return -1;
      found[count++] = array;
      at = array.end - 1;
    } else if (!is_space(c)) {
      is_value = c == ':';
    }
  }
  return count;
}

/* A number as it is written. */
struct number {
  const char *start, *end;
  uint64_t digits;    /* up to 19 of them */
  int64_t exponent;   /* of ten, for `digits` */
  int negative, is_integer, all_digits; /* whether `digits` has all of them */
};

static int scan_number(const char *at, struct number *n) {
  int count = 0;
  *n = (struct number){.start = at, .is_integer = 1, .all_digits = 1};
  if (*at == '-') n->negative = 1, at++;
  if (!is_digit(*at) || (*at == '0' && is_digit(at[1]))) return 0;
  for (; is_digit(*at); at++) {
    if (count < 19) n->digits = n->digits * 10 + (uint64_t)(*at - '0'), count += n->digits != 0;
    else n->exponent++, n->all_digits = 0;
  }
  if (*at == '.') {
    if (!is_digit(*++at)) return 0;
    n->is_integer = 0;
    for (; is_digit(*at); at++) {
      if (count < 19) n->digits = n->digits * 10 + (uint64_t)(*at - '0'), count += n->digits != 0, n->exponent--;
      else n->all_digits = 0;
    }
  }
  if (*at == 'e' || *at == 'E') {
    int negative = 0;
    int64_t exponent = 0;
    n->is_integer = 0;
    at++;
    if (*at == '+' || *at == '-') negative = *at++ == '-';
    if (!is_digit(*at)) return 0;
    for (; is_digit(*at); at++)
      if (exponent < 100000) exponent = exponent * 10 + (*at - '0');
    n->exponent += negative ? -exponent : exponent;
  }
  n->end = at;
  return 1;
}

static locale_t plain; /* a decimal point is one, whatever the process speaks */

__attribute__((constructor)) static void make_plain(void) { plain = newlocale(LC_ALL_MASK, "C", NULL); }

static double read_slowly(const char *number) { return strtod_l(number, NULL, plain); }

/* The nearest double. Clinger 1990, "How to read floating point numbers accurately": exact operands round once. */
static double to_double(const struct number *n) {
  double value;
  int exact = n->all_digits && n->digits <= EXACT_INTEGER;
  if (n->digits == 0) value = 0.0;
  else if (exact && n->exponent >= 0 && n->exponent <= EXACT_POWER) value = (double)n->digits * POWERS[n->exponent];
  else if (exact && n->exponent < 0 && n->exponent >= -EXACT_POWER) value = (double)n->digits / POWERS[-n->exponent];
  else return read_slowly(n->start);
  return n->negative && !(n->is_integer && n->digits == 0) ? -value : value; /* -0 is the integer 0 */
}

/* The float32 nearest to the nearest double. Two roundings are within two units of that double; where the float32 would
   not change with it, which is all but 1 in 67 million, they are enough. */
static int to_float32(const struct number *n, float *out) {
  double value = 0.0;
  uint64_t bits;
  if (n->digits != 0 && n->exponent >= -EXACT_POWER && n->exponent <= EXACT_POWER) {
    value = n->exponent < 0 ? (double)n->digits / POWERS[-n->exponent] : (double)n->digits * POWERS[n->exponent];
    if (n->negative) value = -value;
    memcpy(&bits, &value, sizeof bits);
    int64_t from_middle = (int64_t)(bits & 0x1fffffff) - 0x10000000;
    if ((from_middle > -4 && from_middle < 4) || fabs(value) < FLT_MIN) value = to_double(n);
  } else {
    value = to_double(n);
  }
  *out = (float)value;
  return isfinite(*out);
}

static int to_integer(const struct number *n, enum kind kind, char *out) {
  int size = SIZES[kind];
  uint64_t value = n->digits, most = UINT64_MAX >> (64 - 8 * size + is_signed(kind));
  if (!n->is_integer) return 0;
  if (!n->all_digits) { /* twenty digits may still fit */
    if (n->exponent != 1) return 0;
    unsigned last = (unsigned)(n->end[-1] - '0');
    if (value > (UINT64_MAX - last) / 10) return 0;
    value = value * 10 + last;
  }
  if (n->negative) most = is_signed(kind) ? most + 1 : 0;
  if (value > most) return 0;
  if (n->negative) value = 0 - value;
  if (size == 1) *out = (char)value;
  else memcpy(out, &value, (size_t)size); /* the low bytes: all machines here are little-endian */
  return 1;
}

/* Read one number into `out`; whether that was possible. */
static int read_number(const char **at, enum kind kind, char *out) {
  struct number n;
  if (!scan_number(*at, &n)) return 0;
  *at = n.end;
  if (kind == FLOAT32) return to_float32(&n, (float *)out);
  if (kind > FLOAT64) return to_integer(&n, kind, out);
  double value = to_double(&n);
  memcpy(out, &value, sizeof value);
  return isfinite(value);
}

static char *read_level(const char **at, enum kind kind, const int64_t *shape, int64_t depth, char *out) {
  if (depth == 0) return read_number(at, kind, out) ? out + SIZES[kind] : NULL;
  if (**at != '[') return NULL;
  ++*at;
  for (int64_t index = 0; index < *shape; index++) {
    *at = skip_spaces(*at);
    if (index > 0) {
      if (**at != ',') return NULL;
      *at = skip_spaces(*at + 1);
    }
    out = read_level(at, kind, shape + 1, depth - 1, out);
    if (out == NULL) return NULL;
  }
  *at = skip_spaces(*at);
  if (**at != ']') return NULL;
  ++*at;
  return out;
}

/* Read an array of the given shape, and no other, into `out`, which has room for its values.

   text: of a document, in which the array's first bracket is at `start`; a byte that is no part of a number follows it.
   Returns whether that was possible; if not, `out` holds nothing of use. */
int64_t read_array(const char *text, int64_t start, int64_t kind, const int64_t *shape, int64_t depth, char *out) {
  text += start;
  return depth > 0 && depth <= MAX_DEPTH && read_level(&text, (enum kind)kind, shape, depth, out) != NULL;
}

/* Multiply float32 values, then add to them, each step rounded: by one pair of numbers, or by `steps` of them in turn.

   terms: NULL where nothing is added, which is not the same as zeros: -0 would become 0.
   Returns whether all results are finite. */
int64_t scale(float *values, int64_t count, const float *factors, const float *terms, int64_t steps) {
  int finite = 1;
  for (int64_t start = 0; start + steps <= count; start += steps)
    for (int64_t step = 0; step < steps; step++) {
      float value = values[start + step] * factors[step]; /* compiled so that the two are not fused */
      if (terms) value = value + terms[step];
      values[start + step] = value;
      finite &= isfinite(value) != 0;
    }
  return finite;
}

static int hexadecimal(const char *at, uint32_t *out) {
  *out = 0;
  for (int index = 0; index < 4; index++) {
    char c = at[index];
    int lower = c | 0x20;
    if (is_digit(c)) *out = *out << 4 | (uint32_t)(c - '0');
    else if (lower >= 'a' && lower <= 'f') *out = *out << 4 | (uint32_t)(lower - 'a' + 10);
    else return 0;
  }
  return 1;
}

static char *write_utf8(uint32_t code, char *out) {
  int more = code < 0x80 ? 0 : code < 0x800 ? 1 : code < 0x10000 ? 2 : 3;
  static const unsigned char FIRST[] = {0, 0xc0, 0xe0, 0xf0};
  *out++ = (char)(FIRST[more] | code >> 6 * more);
  while (more-- > 0) *out++ = (char)(0x80 | (code >> 6 * more & 0x3f));
  return out;
}

/* What follows a backslash, into `out`; NULL where that is no escape. A surrogate without its other half stays one. */
static const char *unescape(const char *at, char **out) {
  static const char NAMES[] = "\"\\/bfnrt", MEANINGS[] = "\"\\/\b\f\n\r\t";
  const char *name = *at ? strchr(NAMES, *at) : NULL;
  uint32_t code, low;
  if (name) {
    *(*out)++ = MEANINGS[name - NAMES];
    return at + 1;
  }
  if (*at != 'u' || !hexadecimal(at + 1, &code)) return NULL;
  at += 5;
  if (code >> 10 == 0xd800 >> 10 && at[0] == '\\' && at[1] == 'u' && hexadecimal(at + 2, &low) &&
      low >> 10 == 0xdc00 >> 10) {
    code = 0x10000 + ((code & 0x3ff) << 10 | (low & 0x3ff));
    at += 6;
  }
  *out = write_utf8(code, *out);
  return at;
}

static int is_plain(char c) { return c >= 0x20 && c != '"' && c != '\\' && (unsigned char)c < 0x80; }

enum { RUN = 32 };

static int are_plain(const char *at) { /* the compiler makes a few vector instructions of it */
  int bad = 0;
  for (int index = 0; index < RUN; index++) bad |= !is_plain(at[index]);
  return !bad;
}

/* Unescape a string of ASCII, from behind its first quote; returns where the last one is, or NULL. */
static const char *read_string(const char *at, const char *end, char **out) {
  while (at < end) {
    if (end - at >= RUN && are_plain(at)) {
      memcpy(*out, at, RUN);
      *out += RUN, at += RUN;
      continue;
    }
    for (int count = 0; count < RUN && at < end; count++) {
      if (is_plain(*at)) *(*out)++ = *at++;
      else if (*at == '"') return at;
      else if (*at != '\\' || (at = unescape(at + 1, out)) == NULL) return NULL;
    }
  }
  return NULL;
}

/* Take a string out of a document: the value that a key of the outermost object has.

   text: of JSON, `length` bytes and a zero.
   key: without its quotes.
   span: gets where the string begins and ends, quotes included.
   out: gets what it says, in UTF-8; has room for `length` bytes.
   Returns how many these are; -1 where there is no such string, or it is not JSON, or not ASCII. */
int64_t take_string(const char *text, int64_t length, const char *key, int64_t *span, char *out) {
  int64_t depth = 0, key_length = (int64_t)strlen(key);
  for (int64_t at = 0; at < length; at++) {
    char c = text[at];
    depth += (c == '{' || c == '[') - (c == '}' || c == ']');
    if (c != '"') continue;
    int64_t start = at + 1;
    at = end_of_string(text, at, length);
    if (at >= length || depth != 1 || at - start != key_length || memcmp(text + start, key, (size_t)key_length) != 0)
      continue;
    const char *value = skip_spaces(text + at + 1);
    if (*value != ':' || *(value = skip_spaces(value + 1)) != '"') continue;
    char *written = out;
    const char *end = read_string(value + 1, text + length, &written);
    if (end == NULL) return -1;
    span[0] = value - text, span[1] = end + 1 - text;
    return written - out;
  }
  return -1;
}

/* Of base64's characters: their bits, where the first to fourth of four have them; anything else sets the last byte. */
static uint32_t BITS[4][256];
static const uint32_t NOT_BASE64 = 0xff000000;

__attribute__((constructor)) static void fill_bits(void) {
  static const char ALPHABET[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  for (int place = 0; place < 4; place++) {
    for (int c = 0; c < 256; c++) BITS[place][c] = NOT_BASE64;
    for (uint32_t bits = 0; bits < 64; bits++)
      BITS[place][(int)ALPHABET[bits]] = __builtin_bswap32(bits << (26 - 6 * place)); /* the first byte is the lowest */
  }
}

static uint32_t decode_four(const uint8_t *text) {
  return BITS[0][text[0]] | BITS[1][text[1]] | BITS[2][text[2]] | BITS[3][text[3]];
}

/* Decode base64 without spaces, padded.

   out: has room for three bytes for each four characters.
   Returns how many bytes it is; -1 where it is not base64. */
int64_t decode_base64(const uint8_t *text, int64_t length, uint8_t *out) {
  uint32_t bad = 0, three;
  if (length % 4 || length <= 0) return -1;
  const uint8_t *last = text + length - 4;
  for (; text < last; text += 4, out += 3) {
    three = decode_four(text);
    bad |= three;
    memcpy(out, &three, 4); /* the fourth byte is the next one's first, and written again */
  }
  int padding = last[3] != '=' ? 0 : last[2] != '=' ? 1 : 2;
  uint8_t four[4] = {last[0], last[1], padding > 1 ? 'A' : last[2], padding > 0 ? 'A' : last[3]};
  three = decode_four(four);
  memcpy(out, &three, 3);
  return (bad | three) & NOT_BASE64 ? -1 : length / 4 * 3 - padding;
}

/* Whether float32 values have neither NaN nor infinities. */
int64_t are_finite(const char *values, int64_t count) {
  int bad = 0;
  for (int64_t index = 0; index < count; index++) {
    uint32_t bits;
    memcpy(&bits, values + sizeof bits * index, sizeof bits); /* they may lie anywhere in a body */
    bad |= (bits & 0x7f800000) == 0x7f800000;
  }
  return !bad;
}

/* A decimal: 0.d1d2d3... times 10 to the power of `exponent` + 1. */
struct decimal {
  char digits[20];
  int count, exponent;
};

static void set_digits(struct decimal *decimal, uint64_t value) {
  char reversed[20];
  int count = 0;
  do reversed[count++] = (char)('0' + value % 10);
  while (value /= 10);
  decimal->count = count;
  for (int index = 0; index < count; index++) decimal->digits[index] = reversed[count - 1 - index];
}

/* The fewest digits, at least `least`, that give a float32 back, by trial. */
static int shorten_slowly(double value, int least, struct decimal *decimal) {
  char text[32];
  locale_t before = uselocale(plain);
  int count = least;
  for (; count < 9; count++) {
    snprintf(text, sizeof text, "%.*e", count - 1, value);
    if ((float)strtod(text, NULL) == (float)value) break;
  }
  snprintf(text, sizeof text, "%.*e", count - 1, value);
  uselocale(before);
  decimal->digits[0] = text[0];
  memcpy(decimal->digits + 1, text + 2, (size_t)count - 1);
  decimal->count = count;
  decimal->exponent = atoi(strchr(text, 'e') + 1);
  return count;
}

static double times_power(double value, int power) {
  if (power > EXACT_POWER) return value * POWERS[EXACT_POWER] * POWERS[power - EXACT_POWER];
  if (power < -EXACT_POWER) return value / POWERS[EXACT_POWER] / POWERS[-power - EXACT_POWER];
  return power < 0 ? value / POWERS[-power] : value * POWERS[power];
}

/* The fewest digits from six on that give a positive float32 back; returns how many were enough.

   The value is scaled to nine digits before the point. The nearest decimal with some of them is read as the value if it
   is less than half the distance to the next float32 away. Where rounding could make a difference, trial decides.

   Source: Steele and White 1990, How to print floating-point numbers accurately. */
static int shorten(double value, uint32_t bits, struct decimal *decimal) {
  static const double MARGIN = 1e-6; /* a scaled value is wrong by 3e-7 at most */
  if (value < 1e-36) return shorten_slowly(value, value < FLT_MIN ? 1 : 6, decimal);
  int exponent = (int)floor(((int)(bits >> 23) - 127) * 0.30103);
  double scaled = times_power(value, 8 - exponent);
  if (scaled >= 1e9) scaled = times_power(value, 8 - ++exponent);
  uint32_t mantissa = (bits & 0x7fffff) | 0x800000;
  double half_above = scaled / (2.0 * mantissa), half_below = mantissa == 0x800000 ? half_above / 2 : half_above;
  for (int count = 6; count <= 9; count++) {
    double unit = POWERS[9 - count];
    uint64_t rounded = (uint64_t)(scaled / unit);
    double rest = scaled - (double)rounded * unit;
    int up = rest > unit / 2;
    double from_limit = up ? unit - rest - half_above : rest - half_below;
    if (from_limit > MARGIN) continue;
    if (from_limit > -MARGIN || fabs(rest - unit / 2) < MARGIN) break;
    set_digits(decimal, rounded + (uint64_t)up);
    decimal->exponent = exponent + decimal->count - count; /* 999999.5 may have become 1000000 */
    return count;
  }
  return shorten_slowly(value, 6, decimal);
}

static char *write_bytes(char *out, const char *text, int count) {
  memcpy(out, text, (size_t)count);
  return out + count;
}

static char *write_zeros(char *out, int count) {
  while (count-- > 0) *out++ = '0';
  return out;
}

/* As Python's `%g` writes so many significant digits; but an integer keeps its point. */
static char *write_general(const struct decimal *decimal, int precision, char *out) {
  const char *digits = decimal->digits;
  int count = decimal->count, exponent = decimal->exponent;
  while (count > 1 && digits[count - 1] == '0') count--;
  if (exponent < -4 || exponent >= precision) {
    *out++ = digits[0];
    if (count > 1) *out++ = '.';
    out = write_bytes(out, digits + 1, count - 1);
    *out++ = 'e';
    *out++ = exponent < 0 ? '-' : '+';
    exponent = abs(exponent);
    *out++ = (char)('0' + exponent / 10);
    *out++ = (char)('0' + exponent % 10);
    return out;
  }
  if (exponent < 0) {
    out = write_zeros(write_bytes(out, "0.", 2), -exponent - 1);
    return write_bytes(out, digits, count);
  }
  int whole = count < exponent + 1 ? count : exponent + 1;
  out = write_zeros(write_bytes(out, digits, whole), exponent + 1 - whole);
  *out++ = '.';
  return whole < count ? write_bytes(out, digits + whole, count - whole) : write_zeros(out, 1);
}

static char *write_float32(float value, char *out) {
  struct decimal decimal;
  uint32_t bits;
  memcpy(&bits, &value, sizeof bits);
  if (isnan(value)) return write_bytes(out, "NaN", 3);
  if (bits >> 31) *out++ = '-';
  bits &= 0x7fffffff;
  if (isinf(value)) return write_bytes(out, "Infinity", 8);
  if (bits == 0) return write_bytes(out, "0.0", 3);
  value = fabsf(value);
  int precision = shorten(value, bits, &decimal);
  /* Python's own way tries seven digits before six, but for values that share their first bits with 10^6 or 10^7. */
  int is_near = (value >= 999424 && value < 1007616) || (value >= 9961472 && value < 10092544);
  return write_general(&decimal, precision == 6 && !is_near ? 7 : precision, out);
}

static char *write_integer(const char *data, enum kind kind, char *out) {
  struct decimal decimal;
  uint64_t value = 0;
  int unused = 64 - 8 * SIZES[kind];
  memcpy(&value, data, SIZES[kind]);
  if (is_signed(kind) && (int64_t)(value << unused) < 0) {
    *out++ = '-';
    value = (0 - (value << unused)) >> unused;
  }
  set_digits(&decimal, value);
  return write_bytes(out, decimal.digits, decimal.count);
}

static char *write_number(const char *data, enum kind kind, char *out) {
  float value;
  if (kind == BOOL) return *data ? write_bytes(out, "true", 4) : write_bytes(out, "false", 5);
  if (kind != FLOAT32) return write_integer(data, kind, out);
  memcpy(&value, data, sizeof value);
  return write_float32(value, out);
}

static char *write_level(const char **data, enum kind kind, const int64_t *shape, int64_t depth, char between, char *out) {
  if (depth == 0) {
    *data += SIZES[kind];
    return write_number(*data - SIZES[kind], kind, out);
  }
  for (int64_t index = 0; index < *shape; index++) {
    if (index > 0) *out++ = between;
    if (depth > 1) *out++ = '[';
    out = write_level(data, kind, shape + 1, depth - 1, ',', out);
    if (depth > 1) *out++ = ']';
  }
  return out;
}

/* Write an array as JSON, without its outermost brackets.

   kind: not FLOAT64.
   between: what goes between the entries of the first dimension.
   out: has room for 24 characters for each value, and three for each list.
   Returns how many characters it takes. */
int64_t write_array(const char *data, int64_t kind, const int64_t *shape, int64_t depth, int64_t between, char *out) {
  return write_level(&data, (enum kind)kind, shape, depth, (char)between, out) - out;
}
