/* Arrays of numbers in JSON text, straight to the bytes of a tensor: what json.loads and struct.pack make of them.

   Only what is surely right is read here. For anything else - another kind of value, a ragged array, a number out of
   its type's range, text that is not JSON - the functions say no, and Python's own way finds the words for it. */

#define _GNU_SOURCE /* strtod_l */
#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

enum { MAX_DEPTH = 16, MAX_NUMBER = 1000 };
enum kind { FLOAT32, FLOAT64, INT8, INT16, INT32, INT64, UINT8, UINT16, UINT32, UINT64 };

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
      for (at++; at < length && text[at] != '"'; at++)
        if (text[at] == '\\') at++;
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

static double read_slowly(const char *number) {
  static locale_t plain; /* a decimal point is one, whatever the process speaks */
  if (!plain) plain = newlocale(LC_ALL_MASK, "C", NULL);
  return strtod_l(number, NULL, plain);
}

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

static int to_integer(const struct number *n, uint64_t most, uint64_t most_negative, uint64_t *out) {
  uint64_t value = n->digits;
  if (!n->is_integer) return 0;
  if (!n->all_digits) { /* twenty digits may still fit */
    if (n->exponent != 1) return 0;
    unsigned last = (unsigned)(n->end[-1] - '0');
    if (value > (UINT64_MAX - last) / 10) return 0;
    value = value * 10 + last;
  }
  if (value > (n->negative ? most_negative : most)) return 0;
  *out = n->negative ? 0 - value : value;
  return 1;
}

#define INTEGER(type, most, most_negative)                                  \
  {                                                                         \
    uint64_t value;                                                         \
    if (!to_integer(&n, most, most_negative, &value)) return NULL;          \
    *(type *)out = (type)value;                                             \
    return out + sizeof(type);                                              \
  }

/* Read one number into `out`; returns where the next one goes, or NULL. */
static char *read_number(const char **at, enum kind kind, char *out) {
  struct number n;
  if (!scan_number(*at, &n)) return NULL;
  *at = n.end;
  switch (kind) {
    case FLOAT32: return to_float32(&n, (float *)out) ? out + sizeof(float) : NULL;
    case FLOAT64: *(double *)out = to_double(&n); return isfinite(*(double *)out) ? out + sizeof(double) : NULL;
    case INT8: INTEGER(int8_t, INT8_MAX, 1ull << 7)
    case INT16: INTEGER(int16_t, INT16_MAX, 1ull << 15)
    case INT32: INTEGER(int32_t, INT32_MAX, 1ull << 31)
    case INT64: INTEGER(int64_t, INT64_MAX, 1ull << 63)
    case UINT8: INTEGER(uint8_t, UINT8_MAX, 0)
    case UINT16: INTEGER(uint16_t, UINT16_MAX, 0)
    case UINT32: INTEGER(uint32_t, UINT32_MAX, 0)
    case UINT64: INTEGER(uint64_t, UINT64_MAX, 0)
  }
  return NULL;
}

static char *read_level(const char **at, enum kind kind, const int64_t *shape, int64_t depth, char *out) {
  if (depth == 0) return read_number(at, kind, out);
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

   text: its text, from the first bracket on; a byte that is no part of a number follows.
   Returns whether that was possible; if not, `out` holds nothing of use. */
int64_t read_array(const char *text, int64_t kind, const int64_t *shape, int64_t depth, char *out) {
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
