/* SoftHSM behind a wrapper that a test commands through files of its directory: C_Sign does not return while `hang`
 * exists, and every C_Login adds a byte to `logins`. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

typedef unsigned long rv;
typedef rv (*function)(void);
typedef rv (*get_function_list)(void *);
typedef rv (*login)(unsigned long, unsigned long, unsigned char *, unsigned long);
typedef rv (*sign)(unsigned long, unsigned char *, unsigned long, unsigned char *, unsigned long *);

/* CK_FUNCTION_LIST of PKCS #11 2.40: a version, then the functions in the order of the specification. */
struct list {
  unsigned char version[2];
  function functions[68];
};
enum { LOGIN = 18, SIGN = 43 };

static struct list *real, wrapped;

static const char *path(char *buffer, size_t size, const char *name) {
  snprintf(buffer, size, "%s/%s", getenv("HOLDFAST_TEST_SOFTHSM"), name);
  return buffer;
}

static rv counted_login(unsigned long session, unsigned long user, unsigned char *pin, unsigned long length) {
  char name[4096];
  int file = open(path(name, sizeof name, "logins"), O_WRONLY | O_CREAT | O_APPEND, 0600);
  if (file < 0 || write(file, ".", 1) != 1) abort();
  close(file);
  return ((login)real->functions[LOGIN])(session, user, pin, length);
}

static rv hanging_sign(unsigned long session, unsigned char *data, unsigned long length, unsigned char *signature,
                       unsigned long *signature_length) {
  char name[4096];
  path(name, sizeof name, "hang");
  while (access(name, F_OK) == 0) usleep(2000);
  return ((sign)real->functions[SIGN])(session, data, length, signature, signature_length);
}

rv C_GetFunctionList(struct list **out) {
  void *library = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
  if (!library) return 5;
  rv result = ((get_function_list)dlsym(library, "C_GetFunctionList"))(&real);
  if (result) return result;
  wrapped = *real;
  wrapped.functions[LOGIN] = (function)counted_login;
  wrapped.functions[SIGN] = (function)hanging_sign;
  *out = &wrapped;
  return 0;
}
