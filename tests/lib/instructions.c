/* A plug-in of QEMU's user emulation: how many instructions of the guest were executed.
 *
 * Its interface is declared here, since Debian does not package its header (docs/devel/tcg-plugins.rst of QEMU; version 1,
 * which QEMU 4.2 to 9 speak). */
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#define EXPORTED __attribute__((visibility("default")))

typedef uint64_t plugin_id;
struct block;
struct info;
enum { ADD_U64 };

EXPORTED int qemu_plugin_version = 1;

size_t qemu_plugin_tb_n_insns(const struct block *);
void qemu_plugin_register_vcpu_tb_trans_cb(plugin_id, void (*)(plugin_id, struct block *));
void qemu_plugin_register_vcpu_tb_exec_inline(struct block *, int, void *, uint64_t);
void qemu_plugin_register_atexit_cb(plugin_id, void (*)(plugin_id, void *), void *);

/* One thread works at a time in what is measured; two would lose some of it. */
static uint64_t executed;

static void translated(plugin_id id, struct block *block)
{
    qemu_plugin_register_vcpu_tb_exec_inline(block, ADD_U64, &executed, qemu_plugin_tb_n_insns(block));
}

static void at_exit(plugin_id id, void *nothing)
{
    fprintf(stderr, "\nINSTRUCTIONS %llu\n", (unsigned long long)executed);
}

EXPORTED int qemu_plugin_install(plugin_id id, const struct info *info, int count, char **arguments)
{
    qemu_plugin_register_vcpu_tb_trans_cb(id, translated);
    qemu_plugin_register_atexit_cb(id, at_exit, NULL);
    return 0;
}
