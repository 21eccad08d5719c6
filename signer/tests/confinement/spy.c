/* SoftHSM behind a look at the process that loads it. Appends one line to the file HOLDFAST_TEST_VERDICT: whether the file
 * HOLDFAST_TEST_FORBIDDEN opens, whether a program starts, and what the process has given up. */
#include <dlfcn.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

__attribute__((constructor)) static void look(void) {
  const char *forbidden = getenv("HOLDFAST_TEST_FORBIDDEN"), *verdict = getenv("HOLDFAST_TEST_VERDICT");
  if (!forbidden || !verdict) return;
  int out = open(verdict, O_WRONLY | O_CREAT | O_APPEND, 0600);
  int file = open(forbidden, O_RDONLY);
  pid_t child = fork();
  if (child == 0) _exit(0);
  if (child > 0) waitpid(child, 0, 0);
  struct rlimit core = {1, 1};
  getrlimit(RLIMIT_CORE, &core);
  dprintf(out, "file=%d child=%d dumpable=%d core=%lu privileges=%d filter=%d\n", file >= 0, child > 0,
          prctl(PR_GET_DUMPABLE), (unsigned long)core.rlim_max, !prctl(PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0),
          prctl(PR_GET_SECCOMP));
  close(out);
}

unsigned long C_GetFunctionList(void **list) {
  void *library = dlopen("/usr/lib/softhsm/libsofthsm2.so", RTLD_NOW);
  unsigned long (*real)(void **) = library ? (unsigned long (*)(void **))dlsym(library, "C_GetFunctionList") : 0;
  return real ? real(list) : 5;
}
