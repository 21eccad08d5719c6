/* SoftHSM behind a wrapper that shows the faults and the habits of other tokens. A test commands it through files of the
 * directory HOLDFAST_TEST_SOFTHSM; each is looked at at every call:
 *
 *   hang           C_Sign does not return while it exists
 *   fail           C_Sign and C_DeriveKey return the value that it holds (hexadecimal)
 *   removed        the token is pulled out: its sessions are gone, nothing finds it
 *   logins         written here: a byte for each C_Login
 *   token-flags    these bits (hexadecimal) are set in CK_TOKEN_INFO.flags
 *   max-sessions   what CK_TOKEN_INFO says; `sessions` is how many can really be opened (decimal)
 *   lacks          mechanisms (hexadecimal, separated by blanks) that the token does not have
 *   no-secp256k1   C_GenerateKeyPair knows no such curve
 *   no-null-kdf    C_DeriveKey takes no CKD_NULL
 *   slow-derive    C_DeriveKey takes this many milliseconds; `one-at-a-time` if the token does nothing else meanwhile
 *   derivations    written here: at each call of C_DeriveKey, a digit for how many are under way
 *   opened         written here: the most sessions that were open at once
 *   raw-point      CKA_EC_POINT comes without the OCTET STRING around it
 *   short-x        CKA_VALUE comes without leading zeros
 *   high-s         signatures have the greater of the two values of s
 *   own-nonce      the token chooses the nonce of AES-GCM itself
 *   hides          this attribute (hexadecimal) is of no known type
 */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

typedef unsigned long ulong;
typedef ulong rv;
typedef rv (*function)(void);

/* CK_FUNCTION_LIST of PKCS #11 2.40: a version, then the functions in the order of the specification. */
struct list {
  unsigned char version[2];
  function functions[68];
};
enum {
  FINALIZE = 1, SLOT_LIST = 4, TOKEN_INFO = 6, MECHANISM_LIST = 7, OPEN_SESSION = 12, CLOSE_SESSION = 13,
  LOGIN = 18, ATTRIBUTES = 24, ENCRYPT_INIT = 29, SIGN = 43, GENERATE_PAIR = 59, DERIVE = 62
};
struct attribute { ulong type; void *value; ulong length; };
struct mechanism { ulong type; void *parameter; ulong length; };
struct token_info { unsigned char texts[96]; ulong flags, max_sessions, sessions; };
struct gcm { unsigned char *nonce; ulong nonce_length, nonce_bits; };
struct ecdh { ulong kdf; };

enum {
  OK = 0, GENERAL_ERROR = 5, ATTRIBUTE_TYPE_INVALID = 0x12, DEVICE_REMOVED = 0x32, MECHANISM_PARAM_INVALID = 0x71,
  SESSION_COUNT = 0xb1, SESSION_HANDLE_INVALID = 0xb3, CURVE_NOT_SUPPORTED = 0x140, BUFFER_TOO_SMALL = 0x150,
  CKA_VALUE = 0x11, CKA_EC_POINT = 0x181, CKM_AES_GCM = 0x1087, CKD_NULL = 1
};
#define UNAVAILABLE (~0ul)

static struct list *real, wrapped;
static atomic_int open_sessions, most_sessions, derivations;

static void path(char buffer[4096], const char *name) {
  snprintf(buffer, 4096, "%s/%s", getenv("HOLDFAST_TEST_SOFTHSM"), name);
}

/* The content of a control file; NULL when there is none. */
static const char *told(const char *name, char buffer[256]) {
  char file[4096];
  path(file, name);
  int fd = open(file, O_RDONLY);
  if (fd < 0) return NULL;
  ssize_t length = read(fd, buffer, 255);
  close(fd);
  buffer[length < 0 ? 0 : length] = 0;
  return buffer;
}
static int is_told(const char *name) {
  char buffer[256];
  return told(name, buffer) != NULL;
}
static int number(const char *name, int base, ulong *value) {
  char buffer[256];
  if (!told(name, buffer)) return 0;
  *value = strtoul(buffer, NULL, base);
  return 1;
}
static void note(const char *name, const char *text, int flags) {
  char file[4096];
  path(file, name);
  int fd = open(file, O_WRONLY | O_CREAT | flags, 0600);
  if (fd < 0 || write(fd, text, strlen(text)) < 0) abort();
  close(fd);
}
#define REAL(index, ...) ((rv(*)(__VA_ARGS__))real->functions[index])

/* Whether the token is out of its slot. The sessions from before are of no use afterwards. */
static atomic_ulong newest_session, first_valid_session;
static int removed(void) {
  int away = is_told("removed");
  if (away) first_valid_session = newest_session + 1;
  return away;
}
static rv lost(ulong session) {
  if (removed()) return DEVICE_REMOVED;
  return session < first_valid_session ? SESSION_HANDLE_INVALID : OK;
}

static rv finalize(void *reserved) {
  open_sessions = 0;
  newest_session = first_valid_session = 0;
  return REAL(FINALIZE, void *)(reserved);
}
static rv slot_list(unsigned char present, ulong *slots, ulong *count) {
  if (present && removed()) return *count = 0, OK;
  return REAL(SLOT_LIST, unsigned char, ulong *, ulong *)(present, slots, count);
}
static rv token_info(ulong slot, struct token_info *info) {
  rv result = REAL(TOKEN_INFO, ulong, struct token_info *)(slot, info);
  ulong flags;
  if (result == OK && number("token-flags", 16, &flags)) info->flags |= flags;
  if (result == OK) number("max-sessions", 10, &info->max_sessions);
  return result;
}
static rv mechanism_list(ulong slot, ulong *list, ulong *count) {
  rv result = REAL(MECHANISM_LIST, ulong, ulong *, ulong *)(slot, list, count);
  char buffer[256];
  if (result != OK || !list || !told("lacks", buffer)) return result;
  for (char *word = buffer, *end;; word = end) {
    ulong lacking = strtoul(word, &end, 16), kept = 0;
    if (end == word) return OK;
    for (ulong i = 0; i < *count; i++)
      if (list[i] != lacking) list[kept++] = list[i];
    *count = kept;
  }
}
static rv open_session(ulong slot, ulong flags, void *a, void *b, ulong *session) {
  ulong limit;
  if (removed()) return DEVICE_REMOVED;
  if (number("sessions", 10, &limit) && (ulong)open_sessions >= limit) return SESSION_COUNT;
  rv result = REAL(OPEN_SESSION, ulong, ulong, void *, void *, ulong *)(slot, flags, a, b, session);
  if (result != OK) return result;
  if (*session > newest_session) newest_session = *session;
  int now = ++open_sessions, most = most_sessions;
  while (now > most && !atomic_compare_exchange_weak(&most_sessions, &most, now));
  char text[16];
  snprintf(text, sizeof text, "%d", most_sessions);
  note("opened", text, O_TRUNC);
  return OK;
}
static rv close_session(ulong session) {
  rv result = REAL(CLOSE_SESSION, ulong)(session);
  if (result == OK) open_sessions--;
  return result;
}
static rv login(ulong session, ulong user, unsigned char *pin, ulong length) {
  rv away = lost(session);
  if (away) return away;
  note("logins", ".", O_APPEND);
  return REAL(LOGIN, ulong, ulong, unsigned char *, ulong)(session, user, pin, length);
}

static rv one_attribute(ulong session, ulong object, struct attribute *wanted) {
  unsigned char value[512], *start = value;
  ulong hidden;
  if (number("hides", 16, &hidden) && wanted->type == hidden) {
    wanted->length = UNAVAILABLE;
    return ATTRIBUTE_TYPE_INVALID;
  }
  int point = wanted->type == CKA_EC_POINT && is_told("raw-point");
  int x = wanted->type == CKA_VALUE && is_told("short-x");
  if (!point && !x) return REAL(ATTRIBUTES, ulong, ulong, struct attribute *, ulong)(session, object, wanted, 1);
  struct attribute whole = {wanted->type, value, sizeof value};
  rv result = REAL(ATTRIBUTES, ulong, ulong, struct attribute *, ulong)(session, object, &whole, 1);
  if (result != OK) return wanted->length = UNAVAILABLE, result;
  if (point) start += 2, whole.length -= 2;
  while (x && whole.length > 0 && *start == 0) start++, whole.length--;
  rv fits = wanted->value && wanted->length < whole.length ? BUFFER_TOO_SMALL : OK;
  if (wanted->value && fits == OK) memcpy(wanted->value, start, whole.length);
  wanted->length = whole.length;
  return fits;
}
static rv attributes(ulong session, ulong object, struct attribute *wanted, ulong count) {
  rv result = lost(session);
  for (ulong i = 0; i < count && !lost(session); i++) {
    rv one = one_attribute(session, object, &wanted[i]);
    if (one != OK) result = one;
  }
  return result;
}
static rv encrypt_init(ulong session, struct mechanism *mechanism, ulong key) {
  if (mechanism->type == CKM_AES_GCM && is_told("own-nonce"))
    memset(((struct gcm *)mechanism->parameter)->nonce, 0x5a, 12);
  return REAL(ENCRYPT_INIT, ulong, struct mechanism *, ulong)(session, mechanism, key);
}

/* The order of secp256k1. */
static const unsigned char order[32] = {
  0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xfe,
  0xba, 0xae, 0xdc, 0xe6, 0xaf, 0x48, 0xa0, 0x3b, 0xbf, 0xd2, 0x5e, 0x8c, 0xd0, 0x36, 0x41, 0x41};
static rv sign(ulong session, void *data, ulong length, unsigned char *signature, ulong *signature_length) {
  ulong failure;
  while (is_told("hang")) usleep(2000);
  rv away = lost(session);
  if (away) return away;
  if (number("fail", 16, &failure)) return failure;
  rv result = REAL(SIGN, ulong, void *, ulong, unsigned char *, ulong *)(session, data, length, signature, signature_length);
  if (result == OK && signature && is_told("high-s")) {
    unsigned char *s = signature + 32, negated[32];
    for (int i = 31, borrow = 0; i >= 0; i--) {
      int difference = order[i] - s[i] - borrow;
      borrow = difference < 0;
      negated[i] = difference & 0xff;
    }
    if (memcmp(negated, s, 32) > 0) memcpy(s, negated, 32);
  }
  return result;
}
static rv generate_pair(ulong a, void *b, void *c, ulong d, void *e, ulong f, ulong *g, ulong *h) {
  if (is_told("no-secp256k1")) return CURVE_NOT_SUPPORTED;
  return REAL(GENERATE_PAIR, ulong, void *, void *, ulong, void *, ulong, ulong *, ulong *)(a, b, c, d, e, f, g, h);
}
static rv derive(ulong session, struct mechanism *mechanism, ulong key, void *template, ulong count, ulong *derived) {
  ulong failure, slow = 0;
  rv away = lost(session);
  if (away) return away;
  if (number("fail", 16, &failure)) return failure;
  if (is_told("no-null-kdf") && ((struct ecdh *)mechanism->parameter)->kdf == CKD_NULL) return MECHANISM_PARAM_INVALID;
  if (number("slow-derive", 10, &slow)) {
    static pthread_mutex_t token = PTHREAD_MUTEX_INITIALIZER;
    char digit[2] = {'0' + ++derivations, 0};
    note("derivations", digit, O_APPEND);
    int alone = is_told("one-at-a-time");
    if (alone) pthread_mutex_lock(&token);
    usleep(slow * 1000);
    if (alone) pthread_mutex_unlock(&token);
    derivations--;
  }
  return REAL(DERIVE, ulong, void *, ulong, void *, ulong, ulong *)(session, mechanism, key, template, count, derived);
}

rv C_GetFunctionList(struct list **out) {
  void *library = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
  if (!library) return GENERAL_ERROR;
  rv result = ((rv(*)(struct list **))dlsym(library, "C_GetFunctionList"))(&real);
  if (result != OK) return result;
  wrapped = *real;
  function *f = wrapped.functions;
  f[FINALIZE] = (function)finalize;
  f[SLOT_LIST] = (function)slot_list;
  f[TOKEN_INFO] = (function)token_info;
  f[MECHANISM_LIST] = (function)mechanism_list;
  f[OPEN_SESSION] = (function)open_session;
  f[CLOSE_SESSION] = (function)close_session;
  f[LOGIN] = (function)login;
  f[ATTRIBUTES] = (function)attributes;
  f[ENCRYPT_INIT] = (function)encrypt_init;
  f[SIGN] = (function)sign;
  f[GENERATE_PAIR] = (function)generate_pair;
  f[DERIVE] = (function)derive;
  *out = &wrapped;
  return OK;
}
