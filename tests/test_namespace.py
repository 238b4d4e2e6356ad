#!/usr/bin/env python3
"""Whole takeovers in a PID and mount namespace, on a loop disk: about a second each."""

import contextlib
import fcntl
import gzip
import json
import os
import pathlib
import random
import re
import shutil
import signal
import subprocess
import sys
import time

sys.path.insert(0, str(pathlib.Path(__file__).parent / "lib"))
import balena_image  # noqa: E402
import leftovers  # noqa: E402
import rootfs  # noqa: E402
import runner  # noqa: E402
from guest import compare_disk  # noqa: E402
from namespace import MIB, ROOT_START, Sandbox, libraries  # noqa: E402
from result import check_result_line, check_steps  # noqa: E402

TAKEOVER = runner.program()
CONFIG = b'{"apiEndpoint":"https://api.example.com","applicationId":"1","deviceType":"genericx86-64-ext",' \
         b'"apiKey":"sEcReT-1","keep":  [1.0, "as it is"]}\n'
# What the new OS gets: the name of the old one added, every other byte as it was.
NEW_CONFIG = CONFIG.replace(b'"as it is"]', b'"as it is"],"hostname":  "sandbox"')
BOOT_START = 4 * MIB
BOOT_LENGTH = 8 * MIB


def make_image(folder, size_mib=24, content_mib=6):
    """An image whose boot partition is ext4: this machine's kernel has no vfat."""
    path = folder / "image.raw"
    rootfs.make_file(path, size_mib * MIB)
    rootfs.partition(path, f"label: dos\nstart={BOOT_START // 512}, size={BOOT_LENGTH // 512}, type=83\n"
                           f"start={(BOOT_START + BOOT_LENGTH) // 512}, type=83\n")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-L", "resin-boot", "-E", f"offset={BOOT_START},nodiscard",
                    path, f"{BOOT_LENGTH // 1024}k"], check=True, capture_output=True)
    with open(path, "r+b") as file:
        file.seek(BOOT_START + BOOT_LENGTH)
        file.write(random.Random(7).randbytes(content_mib * MIB))
    put_boot_code(path)
    return path


def put_boot_code(image, code=balena_image.BOOT_CODE):
    """What a BIOS finds in the first sector."""
    with open(image, "r+b") as file:
        file.write(code)


def pack(image, parts=1, level=1):
    """The image as gzip, in so many members."""
    data = image.read_bytes()
    step = -(-len(data) // parts)
    return b"".join(gzip.compress(data[at:at + step], level, mtime=0) for at in range(0, len(data), step))


def files(image, config=CONFIG):
    return {"/tk/takeover": TAKEOVER, "/tk/image": image, "/tk/config.json": config}


COMMAND = "/tk/takeover -i /tk/image -c /tk/config.json --no-ack --in-namespace"


def job(options="", before="", after=""):
    return f"{before}\n{COMMAND} {options}\necho EXIT $?\n{after}\nsleep 60\n"


def check_taken_over(box, image):
    """The disk is the image but for the boot partition, which holds config.json as it was."""
    different = compare_disk(box.disk, image, exclude=[(BOOT_START, BOOT_LENGTH)])
    assert not different, different
    assert box.read_ext4(BOOT_START, "/config.json") == NEW_CONFIG
    check_steps(box.console(), "done")
    return check_result_line(box.console().strip().splitlines()[-1], "done")


def check_secrets(box):
    assert "sEcReT" not in box.console()


def test_sysvinit_in_a_namespace_is_taken_over(folder):
    image = make_image(folder)
    with Sandbox(folder, files=files(pack(image, parts=3))) as box:
        box.start(job())
        seconds = box.wait_exit()
        result = check_taken_over(box, image)
        check_secrets(box)
        # Stage 1 sees the claim even when PID 1 has left the old root before it looks: it ends by itself.
        assert "PID 1 is handed over" in box.console() and "takeover (" not in box.console(), box.console()
        assert result["bytes"] == 24 * MIB and result["chunks"] == 24 and result["zero_chunks"] > 8, result
        assert result["attempts"] == 1 and result["repaired_chunks"] == 0, result
        assert "debug: " not in box.console(), "there are lines that were not asked for"
        print(f"    boot to the end of the namespace: {seconds:.2f} s")


def test_a_raw_image_is_taken_over(folder):
    image = make_image(folder)
    with Sandbox(folder, files=files(image)) as box:
        box.start(job())
        box.wait_exit()
        check_taken_over(box, image)


def test_a_full_run_directory_and_a_stubborn_process_do_not_stop_it(folder):
    image = make_image(folder)
    before = "dd if=/dev/zero of=/run/full bs=64k\nsh -c 'trap \"\" TERM; while :; do sleep 1; done' &\n" \
             "/bin/busybox mkfifo /fifo; cat /fifo & sleep 0.5; kill -STOP $!"
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=before))
        box.wait_exit()
        check_taken_over(box, image)
        assert "did not end when asked" in box.console()
        assert "cat (" not in box.console(), "a stopped process goes on to end when asked"


def test_a_loop_mounted_file_a_bind_mount_and_an_overlay_are_unmounted(folder):
    image = make_image(folder)
    inner = folder / "inner.img"
    rootfs.make_file(inner, 4 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", inner], check=True, capture_output=True)
    before = """
    mkdir -p /a /b /c /low /up /work
    mknod /dev/loop-control c 10 237
    for n in 0 1 2 3 4 5 6 7; do [ -e /dev/loop$n ] || mknod /dev/loop$n b 7 $n; done
    mount -o loop /inner /a || echo NO LOOP
    mount --bind / /b || echo NO BIND
    mount -t overlay -o lowerdir=/low,upperdir=/up,workdir=/work none /c || echo NO OVERLAY
    sleep 1000 < /a/lost+found &
    cat /proc/mounts
    """
    box_files = files(pack(image))
    box_files["/inner"] = inner
    with Sandbox(folder, files=box_files) as box:
        (folder / "x").touch()
        box.start(job(before=before.replace("mknod", "/bin/busybox mknod")))
        box.wait_exit()
        assert "NO " not in box.console(), box.console()
        check_taken_over(box, image)


def test_a_loop_device_on_the_disk_that_nobody_has_open_is_detached(folder):
    """One on a file of the old root, and one on that: both stay until they are detached."""
    image = make_image(folder)
    before = """
    [ -e /dev/loop-control ] || /bin/busybox mknod /dev/loop-control c 10 237
    dd if=/dev/zero of=/inner bs=64k count=64 2>/dev/null
    attach() { for n in 8 9 10 11 12 13 14 15 7 6 5 4 3 2 1 0; do [ -e /dev/loop$n ] || /bin/busybox mknod /dev/loop$n b 7 $n
        /bin/busybox losetup /dev/loop$n $1 2>/dev/null && { echo ON $n; top=/dev/loop$n; return; }; done; }
    attach /inner; attach $top
    """
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=before))
        box.wait_exit()
        attached = re.findall(r"ON (\d+)\n", box.console())
        assert len(attached) == 2, box.console()
        try:
            check_taken_over(box, image)
        except AssertionError:
            # Nobody else would, and the disk's own loop device would stay, too.
            for number in reversed(attached):
                subprocess.run(["losetup", "--detach", f"/dev/loop{number}"], capture_output=True)
            raise


def test_a_worker_killed_before_the_first_write_leaves_the_old_os_whole(folder):
    image = make_image(folder)
    before = "sh -c 'trap \"\" TERM; while :; do sleep 1; done' &"
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job(before=before))
        box.wait_for("takeover is PID 1")
        time.sleep(0.3)
        box.kill_worker()
        box.wait_exit()
        assert "killed by signal 9 in phase kill" in box.console()
        check_old_os_is_whole(box)
        log = box.read_ext4(ROOT_START, "/var/log/takeover.log").decode()
        assert "killed by signal 9" in log, log
        line = box.console().strip().splitlines()[-1]
        assert log.splitlines()[-1] == line, log
        assert check_result_line(line, "untouched")["attempts"] == 1


def check_old_os_is_whole(box):
    assert '"outcome":"untouched"' in box.console(), box.console()
    assert box.disk_bytes(0, 4096) == box.before, "the partition table was written"
    done = subprocess.run(["e2fsck", "-f", "-y", f"{box.disk}?offset={ROOT_START}"], capture_output=True, text=True)
    assert done.returncode in (0, 1), done.stdout
    assert box.read_ext4(ROOT_START, "/tk/config.json") == CONFIG


def test_a_worker_killed_while_flashing_is_run_again(folder):
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder, size_mib=512, files=files(pack(image))) as box:
        wanted = image.read_bytes()[60 * MIB:60 * MIB + 512]
        box.start(job())
        end = time.monotonic() + 50
        while box.disk_bytes(60 * MIB, 512) != wanted and time.monotonic() < end:
            time.sleep(0.002)
        box.kill_worker()
        assert box.disk_bytes(0, 512) == bytes(512), "a half-written disk has a partition table"
        box.wait_exit()
        assert "killed by signal 9 in phase flash" in box.console(), box.console()
        result = check_taken_over(box, image)
        assert result["attempts"] == 2, result


def test_a_worker_killed_while_furnishing_is_run_again_without_flashing(folder):
    image = make_image(folder)
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job())
        box.wait_for("is free", interval=0.0005)
        box.stop_worker_at("verified:")
        box.kill_worker()
        box.wait_exit()
        # It may have been stopped just before it said so.
        assert re.search("killed by signal 9 in phase (verify|furnish)", box.console()), box.console()
        result = check_taken_over(box, image)
        assert result["attempts"] == 2 and box.console().count("flashed (") == 1, box.console()
        assert "the image is on the disk, its files are not: they are placed again" in box.console(), box.console()
        assert "flashed again" not in box.console(), box.console()


def test_a_plan_whose_stage1_was_killed_is_not_carried_out(folder):
    """The trap is still set when init executes itself later: it must not be one."""
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{COMMAND} & stage1=$!\n"
                          "while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done\n"
                          "kill -9 $stage1; wait $stage1; echo KILLED\n"
                          "exec /sbin/init\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_exit()
        assert "KILLED" in box.console() and "stage 1 has gone" in box.console(), box.console()
        assert "takeover is PID 1" not in box.console()
        result = json.loads(box.console().strip().splitlines()[-1])
        assert result["outcome"] == "untouched" and result["attempts"] == 0, result
        assert box.disk_bytes(0, 4096) == box.before


def bypasses_the_cache(process, disk):
    """A process has the disk open with O_DIRECT."""
    folder = pathlib.Path(f"/proc/{process}")
    for descriptor in (folder / "fd").iterdir():
        if os.path.basename(os.readlink(descriptor)) == os.path.basename(disk):
            flags = re.search(r"^flags:\s*(\d+)", (folder / "fdinfo" / descriptor.name).read_text(), re.M)
            return bool(int(flags[1], 8) & os.O_DIRECT)
    raise AssertionError(f"{process} does not have {disk} open")


def test_chunks_that_rot_before_the_read_back_are_repaired(folder):
    """One of zeros at the front, one with content, one of zeros behind all content, and the last."""
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder, size_mib=512, files=files(pack(image))) as box, open(box.disk, "r+b", buffering=0) as disk:
        def rot(chunk):
            disk.seek(chunk * MIB + 12345)
            disk.write(b"rotten")
        box.start(job())
        box.wait_for("is free", interval=0.001)
        wanted = image.read_bytes()[60 * MIB:60 * MIB + 512]
        end = time.monotonic() + 50
        while box.disk_bytes(60 * MIB, 512) != wanted and time.monotonic() < end:
            time.sleep(0.002)
        # The first to be read back: by the time that this is said it may have been.
        rot(1)
        box.stop_worker_at("reading back")
        for chunk in (150, 195, 199):
            rot(chunk)
        assert bypasses_the_cache(box.worker(), box.loop)
        box.stop_worker_at("chunk 150 was written again")
        assert box.disk_bytes(0, 512) == bytes(512), "the head is not written last"
        os.kill(box.worker(), signal.SIGCONT)
        box.wait_exit()
        for chunk in (1, 150, 195, 199):
            assert re.search(f"chunk {chunk} .* was read back wrong", box.console()), box.console()
        result = check_taken_over(box, image)
        assert result["repaired_chunks"] == 4, result


def test_pretend_stops_at_the_proof(folder):
    image = make_image(folder)
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(job("--pretend"))
        box.wait_exit()
        assert '"outcome":"pretended"' in box.console(), box.console()
        assert box.disk_bytes(0, 4096) == box.before
        done = subprocess.run(["e2fsck", "-f", "-n", f"{box.disk}?offset={ROOT_START}"], capture_output=True)
        assert done.returncode == 0, done.stdout
        log = box.read_ext4(ROOT_START, "/var/log/takeover.log").decode()
        check_steps(log, "pretended")
        line = box.console().strip().splitlines()[-1]
        assert log.splitlines()[-1] == line, log
        check_result_line(line, "pretended")


def test_each_stage_logs_at_its_own_level(folder):
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(job("--pretend --log-level debug --s2-log-level warn"))
        box.wait_exit()
        text = box.console()
        assert "debug: there is no /dev/kmsg" in text and "PID 1 is handed over" in text, text
        assert "takeover is PID 1" not in text and '"outcome":"pretended"' in text, text


LOOK = "echo MOUNTS; cat /proc/mounts; ls /run; echo END; cat /proc/1/comm"


def refused(folder, options="", *, image=None, config=CONFIG, code, message, extra=None, before="", **sandbox):
    """Runs a takeover that must be refused, and sees that nothing has changed and the old OS goes on."""
    image = pack(make_image(folder)) if image is None else image
    box_files = files(image, config)
    box_files.update(extra or {})
    with Sandbox(folder, files=box_files, **sandbox) as box:
        box.start(f"{before}\n{LOOK}\n{COMMAND} {options}\necho EXIT $?\n{LOOK}\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        text = box.console()
        assert box.running(), text
        views = re.findall(r"MOUNTS\n(.*?)END\n(\S+)", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert views[1][1] == "init", text
        assert f"EXIT {code}" in text, text
        assert re.search(message, text), text
        assert box.disk_bytes(0, 4096) == box.before
        check_secrets(box)
        return text


def test_refused_a_truncated_gzip(folder):
    refused(folder, image=pack(make_image(folder))[:-1000], code=3, message="cut short")


def test_refused_an_image_that_no_bios_starts(folder):
    if os.path.exists("/sys/firmware/efi"):
        return print("    left out: this machine was started by UEFI")
    image = make_image(folder)
    put_boot_code(image, bytes(len(balena_image.BOOT_CODE)))
    refused(folder, image=pack(image), code=3, message="no boot code, and this PC was started by a BIOS")


def test_an_image_that_no_bios_starts_is_a_warning_with_no_dt_check(folder):
    if os.path.exists("/sys/firmware/efi"):
        return print("    left out: this machine was started by UEFI")
    image = make_image(folder)
    put_boot_code(image, bytes(len(balena_image.BOOT_CODE)))
    text = refused(folder, "--no-dt-check --dry-run", image=pack(image), code=0, message="every check passed")
    assert "no boot code" in text, text


def test_refused_a_wrong_crc(folder):
    image = bytearray(pack(make_image(folder)))
    image[-8] ^= 1
    refused(folder, image=bytes(image), code=3, message="CRC of member 1")


def test_refused_trailing_garbage(folder):
    refused(folder, image=pack(make_image(folder)) + b"garbage", code=3, message="trailing garbage")


def test_refused_a_broken_second_member(folder):
    image = make_image(folder)
    first = len(pack(image, parts=2)) - len(gzip.compress(image.read_bytes()[12 * MIB:], 1, mtime=0))
    broken = bytearray(pack(image, parts=2))
    broken[first + 5000:first + 5100] = bytes(100)
    refused(folder, image=bytes(broken), code=3, message="member 2")


def test_refused_an_image_larger_than_the_disk(folder):
    image = folder / "large"
    rootfs.make_file(image, 300 * MIB)
    rootfs.partition(image, "label: dos\nstart=2048, size=4096, type=83\n")
    put_boot_code(image)
    refused(folder, image=pack(image), code=3, message="314572800 bytes .* the disk has 268435456")


def test_refused_a_raw_image_that_was_cut_short(folder):
    refused(folder, image=make_image(folder).read_bytes()[:-MIB], code=3, message="cut short")


def test_refused_a_gzip_cut_between_its_members(folder):
    image = make_image(folder)
    half = gzip.compress(image.read_bytes()[:12 * MIB], 1, mtime=0)
    assert pack(image, parts=2).startswith(half)
    refused(folder, image=half, code=3, message="cut short")


def test_refused_no_partition_table(folder):
    refused(folder, image=bytes(MIB), code=3, message="partition table .* there is none")


def test_refused_xz(folder):
    refused(folder, image=b"\xfd7zXZ\0" + bytes(1000), code=3, message="xz file")


def test_refused_an_unreadable_config(folder):
    refused(folder, "-c /nowhere.json", code=3, message="/nowhere.json: no such file")


def test_refused_an_invalid_config(folder):
    config = b'{\n "apiKey": "sEcReT",\n}\n'
    refused(folder, config=config, code=3, message="line 2, column 20: a comma after the last element")


def test_refused_an_incomplete_config(folder):
    refused(folder, config=b'{"deviceType":"x"}', code=3, message="apiEndpoint is missing")


def test_refused_a_target_that_is_a_partition(folder):
    refused(folder, "-f $(ls /dev/loop*p2)", code=3, message="it is a partition")


def test_refused_a_disk_that_the_firmware_does_not_start_from(folder):
    """/boot is on another disk; whoever names the disk is only warned."""
    other = folder / "other.img"
    rootfs.make_file(other, 4 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", other], check=True, capture_output=True)
    loop = subprocess.run(["losetup", "--show", "--find", other], check=True, capture_output=True, text=True).stdout.strip()
    try:
        number = os.minor(os.stat(loop).st_rdev)
        before = f"mkdir /boot\n/bin/busybox mknod {loop} b 7 {number}\nmount -t ext4 {loop} /boot || echo NO BOOT"
        text = refused(folder, before=before, code=3,
                       message="/boot is mounted from loop.*: the firmware seems to start from there")
        assert "NO BOOT" not in text
        shutil.rmtree(folder / "mnt")
        text = refused(folder, "--dry-run -f $(ls /dev/loop*p2 | sed s/p2//)", before=before, code=0,
                       message="dry run: every check passed")
        assert "- /boot is mounted from loop" in text, text
    finally:
        subprocess.run(["losetup", "--detach", loop], check=True)


def test_refused_a_target_that_is_not_there(folder):
    refused(folder, "-f /dev/nowhere", code=3, message="/dev/nowhere: no such file")


def test_refused_a_target_that_is_no_block_device(folder):
    refused(folder, "-f /dev/null", code=3, message="not a block device")


def test_refused_a_log_device_on_the_target(folder):
    refused(folder, "-l $(ls /dev/loop*p2)", code=3, message="disk that will be overwritten")


def test_refused_without_root(folder):
    image = pack(make_image(folder))
    with Sandbox(folder, files=files(image)) as box:
        box.start("/bin/busybox chmod -R a+rX /\n/bin/busybox chmod 755 /tk/takeover\n"
                  "echo 'user:x:1000:1000::/:/bin/sh' > /etc/passwd\n"
                  f"/bin/busybox su -s /bin/sh user -c '{COMMAND}'\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        assert re.search("only root can do this", box.console()), box.console()
        assert "EXIT 3" in box.console()


def test_refused_outside_the_namespaces_of_pid1(folder):
    image = pack(make_image(folder))
    with Sandbox(folder, files=files(image)) as box:
        box.start(f"/bin/busybox unshare -m {COMMAND}\necho EXIT $?\n"
                  f"mkdir /jail; mount --bind / /jail; mount --bind /proc /jail/proc\n"
                  f"/bin/busybox chroot /jail {COMMAND}\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        text = box.console()
        assert text.count("EXIT 3") == 2 and text.count("another namespace or root directory") == 2, text


def test_refused_in_a_container_unless_told(folder):
    image = pack(make_image(folder))
    with Sandbox(folder, files=files(image)) as box:
        box.start(f"{COMMAND.replace('--in-namespace', '')}\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        assert "EXIT 3" in box.console() and "this is a container" in box.console(), box.console()


def test_a_hand_over_that_never_comes_is_undone(folder):
    # A shell as init: it reads /run/initctl and does nothing with it.
    image = pack(make_image(folder))
    shell = pathlib.Path("/bin/dash")
    box_files = files(image)
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{LOOK}\n{COMMAND} --hand-over-timeout 1\necho EXIT $?\n{LOOK}\necho OVER\nsleep 60\n"
                          ).encode()
    with Sandbox(folder, files=box_files, init=shell) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert "EXIT 1" in text and "did not execute itself again within 1 s" in text, text
        assert "everything is undone" in text
        assert box.disk_bytes(0, 4096) == box.before


# A shell as PID 1 under the name of systemd: it is asked with SIGTERM, and does not hear.
AS_SYSTEMD = b"/bin/busybox cp /sbin/init /sbin/systemd; exec /sbin/systemd /script\n"
WAIT_FOR_THE_BIND = "while ! grep -q ' /sbin/systemd ' /proc/mounts; do sleep 0.02; done\n"


def deaf_systemd(folder, script):
    """A sandbox whose PID 1 runs this script, and does nothing when asked to execute itself again."""
    box_files = files(pack(make_image(folder)))
    box_files.update({"/as-systemd": AS_SYSTEMD, "/script": f"{script}\necho OVER\nsleep 60\n".encode()})
    # That of busybox takes no priority everywhere.
    box_files.update({path: pathlib.Path(path) for path in ["/sbin/swapon", *libraries("/sbin/swapon")]})
    return Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash"))


def test_a_signal_undoes_everything_swap_and_the_size_of_run_included(folder):
    """The swap lies on the disk's first partition; /run is too small for systemd."""
    swap = """
    p=$(ls /dev | grep 'p2$'); p=${p%2}1
    /bin/busybox mknod /dev/$p b $(/bin/busybox tr : ' ' < /sys/class/block/$p/dev)
    /bin/busybox mkswap /dev/$p >/dev/null && /sbin/swapon -p 7 /dev/$p
    """
    # Another test may be rehearsing at this moment, too.
    look = f"{LOOK}; grep /dev/loop /proc/swaps\n"
    loops = "for n in 1 2 3 4 5 6 7 8 9; do grep -q rehearsal /sys/block/loop*/loop/backing_file || break; " \
            "sleep 0.2; done; [ $n = 9 ] && echo LOOP DEVICE LEFT\n"
    with deaf_systemd(folder, f"{swap}\n{look}\n{COMMAND} & stage1=$!\n{WAIT_FOR_THE_BIND}\n"
                              "echo MEANWHILE; grep -c /dev/loop /proc/swaps; grep ' /run tmpfs' /proc/mounts\n"
                              f"kill -TERM $stage1; wait $stage1; echo EXIT $?\n{look}\n{loops}") as box:
        try:
            box.start_as_shell("/as-systemd")
            box.wait_for("OVER")
        finally:
            # It is the machine's until then, and would keep the disk.
            subprocess.run(["swapoff", box.loop + "p1"], capture_output=True)
        text = box.console()
        assert "EXIT 1" in text and "SIGTERM: it was asked to end" in text, text
        views = re.findall(r"MOUNTS\n(.*?)END\n(.*?7)\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        meanwhile = re.search(r"MEANWHILE\n0\n.* /run tmpfs rw,nosuid,nodev,noexec,\S*size=(\d+)k", text)
        assert meanwhile and int(meanwhile[1]) > 16 << 10, text
        assert "LOOP DEVICE LEFT" not in text, text
        assert box.disk_bytes(0, 4096) == box.before


def test_the_ramfs_is_private_and_no_cleanup_leaves_it(folder):
    """Nobody else may look into it, and no other namespace sees it, though /run is shared as under systemd."""
    with deaf_systemd(folder, "mount --make-shared /run; /bin/busybox chmod 777 /run; umask 0\n"
                              f"{COMMAND} --no-cleanup --hand-over-timeout 1; echo EXIT $?\n"
                              "cd /run/takeover-*\n/bin/busybox stat -c 'IS %a %n' . * furnish/* dev/*\n"
                              "grep /run/takeover- /proc/self/mountinfo | /bin/busybox sed 's/^/MOUNT /'") as box:
        box.start_as_shell("/as-systemd")
        box.wait_for("OVER")
        text = box.console()
        assert "EXIT 1" in text and "is left as it is" in text and "everything is undone" not in text, text
        modes = dict((name, mode) for mode, name in re.findall(r"IS (\d+) (.*)", text))
        assert {".", "image", "takeover", "furnish/0", "dev/null"} < modes.keys(), text
        open_to_all = {name: mode for name, mode in modes.items()
                       if name not in ("proc", "sys", "dev/console") and not mode.endswith("00")}
        assert not open_to_all, open_to_all
        mounts = re.findall(r"MOUNT (.*)", text)
        ramfs = [line for line in mounts if " - tmpfs takeover " in line]
        assert len(ramfs) == 1 and re.search(r" rw,size=\d+k,mode=700$", ramfs[0]), mounts
        assert not [line for line in mounts if "shared:" in line], mounts


def test_an_unknown_init_is_refused(folder):
    image = pack(make_image(folder))
    box_files = files(image)
    box_files["/deaf"] = f"{COMMAND}\necho EXIT $?\necho OVER\nsleep 60\n".encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        assert "EXIT 3" in box.console() and "this init is not known" in box.console(), box.console()


@contextlib.contextmanager
def other_disk(folder):
    """A second loop disk: one ext4 file system."""
    disk = folder / "other.img"
    rootfs.make_file(disk, 4 * MIB)
    subprocess.run(["mkfs.ext4", "-q", "-F", disk], check=True, capture_output=True)
    loop = subprocess.run(["losetup", "--show", "--find", disk], check=True, capture_output=True, text=True).stdout.strip()
    try:
        yield loop
    finally:
        end = time.monotonic() + 10
        while not leftovers.detach(loop):
            assert time.monotonic() < end, f"{loop} is still in use"
            time.sleep(0.02)


def test_refused_a_boot_partition_of_another_disk_behind_an_automount(folder):
    """What the firmware starts from is mounted only when somebody looks."""
    box_files = files(pack(make_image(folder))) | {"/boot/empty": b""}
    wait = "echo UP\nwhile [ ! -e /dev/automount ]; do sleep 0.1; done\n"
    with other_disk(folder) as loop, Sandbox(folder, files=box_files) as box:
        box.start(f"{wait}{COMMAND} --dry-run\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("UP")
        program = pathlib.Path(__file__).parent / "lib/automount.py"
        with subprocess.Popen([sys.executable, program, str(box.pid1()), "/boot", loop],
                              preexec_fn=leftovers.die_with_parent) as automount:
            try:
                box.wait_for("OVER")
            finally:
                automount.kill()
        text = box.console()
        assert f"/boot is mounted from {os.path.basename(loop)}: the firmware seems to start from there" in text, text
        assert "EXIT 3" in text, text


def test_an_automount_that_mounts_nothing_is_a_warning(folder):
    """Whoever would mount it is gone."""
    box_files = files(pack(make_image(folder))) | {"/boot/empty": b""}
    wait = "echo UP\nwhile [ ! -e /dev/go ]; do sleep 0.1; done\n"
    with other_disk(folder) as loop, Sandbox(folder, files=box_files) as box:
        box.start(f"{wait}{COMMAND} --dry-run\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("UP")
        program = pathlib.Path(__file__).parent / "lib/automount.py"
        with subprocess.Popen([sys.executable, program, str(box.pid1()), "/boot", loop],
                              preexec_fn=leftovers.die_with_parent) as automount:
            dev = pathlib.Path(f"/proc/{box.pid1()}/root/dev")
            while not (dev / "automount").exists():
                assert automount.poll() is None
                time.sleep(0.05)
            automount.kill()
            automount.wait()
        (dev / "go").touch()
        box.wait_for("OVER")
        text = box.console()
        assert "/boot is an automount that mounts nothing" in text and "EXIT 0" in text, text


def test_refused_a_disk_with_a_pool_of_zfs(folder):
    """A partition with the label of ZFS that somebody has claimed."""
    box_files = files(pack(make_image(folder)))
    wait = "echo UP\nwhile [ ! -e /dev/go ]; do sleep 0.1; done\n"
    label = bytes([1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x24, 0, 0, 0, 0x20, 0, 0, 0, 7]) + b"version\0"
    with Sandbox(folder, files=box_files) as box:
        with open(box.disk, "r+b") as file:
            file.seek(MIB + 16 * 1024)
            file.write(label)
        # Exported, then imported.
        box.start(f"{wait}{COMMAND} --dry-run\necho EXIT $?\ntouch /dev/went\n"
                  f"while [ ! -e /dev/claimed ]; do sleep 0.1; done\n{COMMAND} --dry-run\necho EXIT $?\n"
                  "echo OVER\nsleep 60\n")
        box.wait_for("UP")
        dev = pathlib.Path(f"/proc/{box.pid1()}/root/dev")
        part = f"{box.loop}p1"
        os.mknod(dev / os.path.basename(part), 0o60600, os.stat(part).st_rdev)
        (dev / "go").touch()
        box.wait_for("EXIT 0")
        claim = os.open(part, os.O_RDONLY | os.O_EXCL)
        try:
            (dev / "claimed").touch()
            box.wait_for("OVER")
        finally:
            os.close(claim)
        text = box.console()
        assert f"ZFS has {os.path.basename(part)} in a pool" in text and "EXIT 3" in text, text


def test_the_answer_no_and_the_end_of_input_mean_no(folder):
    image = pack(make_image(folder))
    command = COMMAND.replace("--no-ack", "")
    with Sandbox(folder, files=files(image)) as box:
        box.start(f"echo no | {command}\necho EXIT $?\n: | {command}\necho EXIT $?\n"
                  f"{command} </dev/null\necho EXIT $?\necho OVER\nsleep 60\n")
        box.wait_for("OVER")
        text = box.console()
        assert text.count("EXIT 3") == 3 and text.count("the answer was not 'yes'") == 2, text
        assert text.count("there is no input to answer on") == 1, text
        assert text.index("What it takes") < text.index("Type 'yes'"), "the preview comes before the question"


def test_dry_run_changes_nothing_and_shows_the_preview(folder):
    text = refused(folder, "--dry-run --no-vpn-check", code=0, message="dry run: every check passed")
    for line in ("mounted at / (ext4)", "size on the disk          24.0 MiB", "partition table           MBR",
                 "name                      Debian GNU/Linux 12 (bookworm)", "hostname                  sandbox",
                 "device type               genericx86-64-ext", "  - --no-vpn-check has no effect"):
        assert line in text, (line, text)


def test_a_log_file_has_the_log_and_no_secret(folder):
    text = refused(folder, "--dry-run --log-file /tk/log --log-level trace; cat /tk/log >&2", code=0,
                   message="dry run: every check passed")
    assert text.count("dry run: every check passed") == 2, text
    assert "sEcReT" not in text, text


def test_the_preview_as_json(folder):
    text = refused(folder, "--dry-run --json 2>/dev/null", code=0, message='{"device":')
    page = json.loads(re.search(r"^{.*}$", text, re.M)[0])
    assert page["image"]["bytes"] == 24 * MIB and page["image"]["zero_percent"] == 66, page
    assert page["new_os"]["hostname"] == "sandbox" and page["os"]["init"] == "sysvinit", page
    assert "mounted at / (ext4)" in page["disk"]["uses"], page
    assert page["demands"]["memory_needed"] < page["demands"]["memory_available"], page
    assert page["demands"]["seconds_alone"] > 0, page


def test_flash_writes_a_disk_that_is_not_in_use(folder):
    image = make_image(folder)
    packed = folder / "image.gz"
    packed.write_bytes(pack(image))
    config = folder / "config.json"
    config.write_bytes(CONFIG)
    keyfile = folder / "office"
    keyfile.write_text("[connection]\nid=office\ntype=wifi\n\n[wifi]\nssid=office\n\n"
                       "[wifi-security]\nkey-mgmt=wpa-psk\npsk=sEcReT-1\n")
    with Sandbox(folder) as box:
        loop = box.attach()
        done = subprocess.run([TAKEOVER, "flash", "-i", packed, "-f", loop, "-c", config, "--nwmgr-cfg", keyfile,
                               "--no-ack", "--no-api-check"], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        different = compare_disk(box.disk, image, exclude=[(BOOT_START, BOOT_LENGTH)])
        assert not different, different
        assert box.read_ext4(BOOT_START, "/config.json") == CONFIG
        placed = re.search(r"placed and read back /(system-connections/\S+)", done.stderr)
        assert placed and b"psk=sEcReT-1" in box.read_ext4(BOOT_START, f"/{placed[1]}"), done.stderr
        assert "--no-api-check has no effect" in done.stderr and "sEcReT" not in done.stderr, done.stderr
        assert json.loads(done.stderr.splitlines()[-1])["outcome"] == "done", done.stderr
        assert "undone" not in done.stderr, done.stderr


def test_flash_refuses_a_disk_that_is_in_use(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder, files={}) as box:
        box.start("echo UP\nsleep 60\n")
        box.wait_for("UP")
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", box.loop, "--no-ack"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 1, done.stderr
        assert "something still uses it" in done.stderr, done.stderr
        assert json.loads(done.stderr.splitlines()[-1])["outcome"] == "untouched", done.stderr
        assert box.disk_bytes(0, 4096) == box.before


# A suite with one test, which says what it has made and then sleeps.
SLEEPER = """
import sys, time
sys.path.insert(0, sys.argv.pop())
import runner
from namespace import Sandbox
def test_sleep(folder):
    with Sandbox(folder) as box:
        box.start("echo UP; sleep 100")
        box.wait_for("UP")
        print(folder, box.loop, box.pid1(), flush=True)
        time.sleep(100)
runner.main(sys.modules[__name__], [])
"""


def end_a_run(folder, number):
    """Ends a run of SLEEPER by a signal; its folder, its loop device, and whether its namespace is gone soon after."""
    script = folder / "sleeper.py"
    script.write_text(SLEEPER)
    process = subprocess.Popen([sys.executable, "-B", script, pathlib.Path(__file__).parent / "lib"],
                               stdout=subprocess.PIPE, text=True, preexec_fn=leftovers.die_with_parent)
    *_, path, loop, pid1 = process.stdout.readline().split()
    os.kill(process.pid, number)
    process.wait()
    end = time.monotonic() + 10
    while pathlib.Path(f"/proc/{pid1}").exists() and time.monotonic() < end:
        time.sleep(0.01)
    return pathlib.Path(path), loop, not pathlib.Path(f"/proc/{pid1}").exists()


def lies_on(loop, path):
    backing = pathlib.Path(f"/sys/block/{os.path.basename(loop)}/loop/backing_file")
    return backing.exists() and backing.read_text().startswith(str(path))


def test_of_a_killed_run_no_process_stays_and_the_next_run_frees_its_disk(folder):
    path, loop, gone = end_a_run(folder, signal.SIGKILL)
    assert gone and path.exists()
    with Sandbox(folder) as box:
        box.attach()
        leftovers.remove()
        assert lies_on(box.loop, folder) and folder.exists(), "that of a living test is gone"
    assert not lies_on(loop, path) and not path.exists()


def test_a_run_that_is_asked_to_end_leaves_nothing(folder):
    path, loop, gone = end_a_run(folder, signal.SIGTERM)
    assert gone and not lies_on(loop, path) and not path.exists()


def test_flash_refuses_a_disk_that_a_loop_device_lies_on(folder):
    """The kernel lets others claim a disk that only a loop device has open."""
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach()
        before = box.disk_bytes(0, 4096)
        above = subprocess.run(["losetup", "--show", "--find", "--offset", str(MIB), loop],
                               check=True, capture_output=True, text=True).stdout.strip()
        try:
            done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                                  capture_output=True, text=True, timeout=60)
        finally:
            subprocess.run(["losetup", "--detach", above], check=True)
        assert done.returncode == 1 and "a loop device lies on it" in done.stderr, done.stderr
        assert box.disk_bytes(0, 4096) == before


def test_flash_refuses_a_disk_that_has_changed_since_it_was_checked(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach()
        before = box.disk_bytes(0, 4096)
        process = subprocess.Popen([TAKEOVER, "flash", "-i", image, "-f", loop], stdin=subprocess.PIPE,
                                   stderr=subprocess.PIPE, bufsize=0)
        said = b""
        while b"Type 'yes'" not in said and process.poll() is None:
            said += process.stderr.read(1)
        os.truncate(box.disk, 128 * MIB)
        subprocess.run(["losetup", "--set-capacity", loop], check=True)
        _, errors = process.communicate(b"yes\n", timeout=60)
        assert process.returncode == 1 and b"its size has changed" in errors, errors
        assert box.disk_bytes(0, 4096) == before


def test_a_command_line_over_the_heap_cap_is_a_clear_error(folder):
    done = subprocess.run([TAKEOVER, "scan", *["x" * 1000] * 1400], capture_output=True, text=True)
    assert done.returncode == 1 and "cap of this program; nothing was changed" in done.stderr, done


def test_a_closed_pipe_is_an_error_and_not_the_end(folder):
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run([TAKEOVER, "--help"], stdout=writer, stderr=subprocess.PIPE, text=True)
    os.close(writer)
    assert done.returncode == 1 and "writing to standard output: errno 32" in done.stderr, done


def test_no_file_is_opened_in_place_of_a_closed_stderr(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach()
        command = 'exec "$0" flash -i "$1" -f "$2" >&- 2>&-'
        process = subprocess.Popen(["sh", "-c", command, TAKEOVER, image, loop], stdin=subprocess.PIPE)
        descriptors = pathlib.Path(f"/proc/{process.pid}/fd")
        deadline = time.monotonic() + 10
        while process.poll() is None and time.monotonic() < deadline:
            # By then it is no longer the shell, and waits for the answer.
            if pathlib.Path(f"/proc/{process.pid}/exe").resolve() == TAKEOVER.resolve():
                time.sleep(0.5)
                break
        opened = [os.readlink(descriptors / str(number)) for number in (1, 2)]
        process.communicate(b"no\n", timeout=60)
        assert opened == ["/dev/null", "/dev/null"], opened
        assert process.returncode == 3


def test_flash_refuses_a_read_only_disk(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        loop = box.attach("--read-only")
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 3 and "it is read-only" in done.stderr, done.stderr


def test_flash_says_that_the_disk_is_incomplete_when_its_source_rots(folder):
    image = make_image(folder, size_mib=200, content_mib=180)
    with Sandbox(folder) as box:
        loop = box.attach()
        process = subprocess.Popen([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                                   stderr=subprocess.PIPE, text=True)
        with open(image, "r+b", buffering=0) as file:
            file.seek(20 * MIB)
            wanted = file.read(512)
            end = time.monotonic() + 60
            while box.disk_bytes(20 * MIB, 512) != wanted and time.monotonic() < end:
                time.sleep(0.0005)
            file.seek(190 * MIB)
            file.write(b"rotten")
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 4, errors
        assert "it differs from what was scanned" in errors and "incomplete" in errors, errors
        assert json.loads(errors.splitlines()[-1])["outcome"] == "failed", errors
        assert "undone" not in errors, errors
        assert box.disk_bytes(0, 512) == bytes(512), "a half-written disk has a partition table"


SWAP = "dd if=/dev/zero of=/swap bs=1024k count=4 2>/dev/null; /bin/busybox mkswap /swap >/dev/null"


@contextlib.contextmanager
def swap_off_at_last(box):
    """Swap is the whole kernel's, and outlives the namespace: the sandbox's own must not stay when a test fails."""
    try:
        yield
    finally:
        point = box.folder / "swap-point"
        point.mkdir()
        if subprocess.run(["mount", "-t", "ext4", f"{box.loop}p2", point], capture_output=True).returncode == 0:
            subprocess.run(["swapoff", point / "swap"], capture_output=True)
            subprocess.run(["umount", point], check=True)


def test_swap_that_comes_up_while_the_question_waits_is_turned_off(folder):
    command = COMMAND.replace("--no-ack", "")
    script = f"""{SWAP}
    (while ! grep -q "Type 'yes'" /dev/console; do sleep 0.1; done
     /bin/busybox swapon /swap; echo SWAP IS ON >&2; echo yes) | {command} --pretend
    """
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(f"{script}\necho EXIT $?\nsleep 60\n")
        with swap_off_at_last(box):
            box.wait_exit()
        text = box.console()
        assert re.search(r"SWAP IS ON.*swap on /swap is off", text, re.S), text
        assert '"outcome":"pretended"' in text, text


def test_a_kernel_that_cannot_mount_the_new_boot_partition_is_refused_with_swap_still_on(folder):
    """A kernel without vfat. One that has it rehearses the mount, and goes on."""
    has_vfat = "vfat" in pathlib.Path("/proc/filesystems").read_text() or \
        shutil.which("modprobe") and subprocess.run(["modprobe", "-q", "vfat"]).returncode == 0
    image = folder / "vfat.raw"
    rootfs.make_file(image, 24 * MIB)
    rootfs.partition(image, f"label: dos\nstart={BOOT_START // 512}, size={BOOT_LENGTH // 512}, type=c\n")
    subprocess.run(["mkfs.vfat", "-n", "resin-boot", "--offset", str(BOOT_START // 512), image,
                    str(BOOT_LENGTH // 1024)], check=True, capture_output=True)
    put_boot_code(image)
    with Sandbox(folder, files=files(pack(image))) as box:
        box.start(f"{SWAP}; /bin/busybox swapon /swap\n{LOOK}\n{COMMAND}\necho EXIT $?\n{LOOK}\n"
                  "cat /proc/swaps\necho OVER\nsleep 60\n")
        with swap_off_at_last(box):
            box.wait_for("rehearsed: vfat can be mounted" if has_vfat else "OVER")
        if has_vfat:
            return
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert "EXIT 3" in text and "mount the new boot partition: is the module there" in text, text
        assert "/swap is off" not in text and re.search("^/swap +file", text, re.M), text


def test_a_signal_while_pid1_executes_us_already_does_not_take_the_plan_back(folder):
    """The shell that is PID 1 holds the file open, as the kernel does that is about to execute it."""
    image = make_image(folder)
    box_files = files(pack(image))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{COMMAND} & stage1=$!\n"
                          "while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done\n"
                          "exec 3</sbin/init\nkill -HUP $stage1\nsleep 1\nexec /sbin/init\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_exit()
        check_taken_over(box, image)


def test_a_second_takeover_is_refused_while_the_first_one_waits(folder):
    first = f"(sleep 1000 | {COMMAND.replace('--no-ack', '')}) & while ! grep -q \"Type 'yes'\" /dev/console; do sleep 0.1; done"
    flash = "/tk/takeover flash -i /tk/image -f /dev/null --no-ack"
    text = refused(folder, f"--dry-run; {COMMAND}; {flash}", before=first, code=3, message="another takeover is running")
    assert text.count("another takeover is running") == 3, text


def test_what_a_killed_takeover_left_is_removed_by_the_next_one(folder):
    """Killed when its program lies over init's: a shell is init, and does not listen."""
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = (f"/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n{LOOK}\n"
                          f"{COMMAND} & first=$!\n"
                          "while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done\n"
                          "kill -9 $first; wait $first\n"
                          f"{COMMAND} --dry-run\necho DRY $?\ngrep -c '^takeover /' /proc/mounts\n"
                          f"{COMMAND} --hand-over-timeout 1\necho EXIT $?\n{LOOK}\necho OVER\nsleep 60\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        text = box.console()
        views = re.findall(r"MOUNTS\n(.*?)END\n", text, re.S)
        assert len(views) == 2 and views[0] == views[1], text
        assert re.search(r"a takeover was killed, or left it with --no-cleanup: /run/takeover-\w+ is removed", text), text
        assert "which the next one removes" in text, text
        assert "EXIT 1" in text and "did not execute itself again within 1 s" in text, text


def test_a_signal_is_named_and_one_that_is_ignored_is_not_heeded(folder):
    """nohup(1) ignores SIGHUP; blocked, it stays pending all the same."""
    run = (f"{COMMAND} --hand-over-timeout 2 & stage1=$!\n"
           "while ! grep -q ' /sbin/init ' /proc/mounts; do sleep 0.05; done\n"
           "kill -HUP $stage1; wait $stage1; echo EXIT $?\n")
    box_files = files(pack(make_image(folder)))
    box_files["/deaf"] = ("/bin/busybox mkfifo /run/initctl\nwhile :; do cat /run/initctl >/dev/null; done &\n"
                          f"{run}echo NOHUP\ntrap '' HUP\n{run}echo OVER\nsleep 60\n").encode()
    with Sandbox(folder, files=box_files, init=pathlib.Path("/bin/dash")) as box:
        box.start_as_shell("/deaf")
        box.wait_for("OVER")
        heeded, ignored = box.console().split("NOHUP")
        assert "SIGHUP: the session has ended; start it below tmux" in heeded and "EXIT 1" in heeded, heeded
        assert "did not execute itself again within 2 s" in ignored and "SIGHUP" not in ignored, ignored


def test_scan_prints_at_every_log_level(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    scan = [TAKEOVER, "scan", image, "--log-level", "error"]
    done = subprocess.run(scan, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0 and done.stderr == "", done
    assert re.search(r"on the disk +25165824 bytes\n", done.stdout) and "MBR" in done.stdout, done.stdout
    done = subprocess.run([*scan, "--json"], capture_output=True, text=True, timeout=60)
    page = json.loads(done.stdout)["image"]
    assert page["bytes"] == 24 * MIB and page["boot_start"] == BOOT_START and page["format"] == "gzip", page


def test_a_log_file_that_cannot_be_is_a_refusal(folder):
    link = folder / "link"
    link.symlink_to(folder / "elsewhere")
    for path in (folder / "nowhere/log", link):
        done = subprocess.run([TAKEOVER, "--tool-version", "--log-file", path], capture_output=True, text=True)
        assert done.returncode == 3 and "opening the log file" in done.stderr, done
    assert not (folder / "elsewhere").exists()


def test_refused_without_the_capabilities_that_it_takes(folder):
    """It would fail in the middle: mounting the RAMFS."""
    done = subprocess.run(["setpriv", "--bounding-set", "-sys_admin", TAKEOVER, "flash", "-i", "/nowhere",
                           "-f", "/dev/null", "--no-ack"], capture_output=True, text=True)
    assert done.returncode == 3 and "CAP_SYS_ADMIN is missing" in done.stderr, done


STUBBORN = "sh -c 'trap \"\" TERM; while :; do sleep 1; done' &"


def test_a_flipped_bit_in_the_staged_image_is_found_before_the_first_write(folder):
    """In the middle of the image: decoding would find it when half of the disk is written."""
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(job(before=STUBBORN))
        box.wait_for("takeover is PID 1")
        with open(f"/proc/{box.pid1()}/root/image", "r+b", buffering=0) as staged:
            place = staged.seek(0, os.SEEK_END) // 2
            staged.seek(place)
            byte = staged.read(1)[0]
            staged.seek(place)
            staged.write(bytes([byte ^ 16]))
        box.wait_exit()
        assert "checking the image: it is not what was scanned; the memory" in box.console(), box.console()
        check_old_os_is_whole(box)


def test_flash_pretends_too(folder):
    image = folder / "image.gz"
    image.write_bytes(pack(make_image(folder)))
    with Sandbox(folder) as box:
        before = box.disk_bytes(0, box.disk.stat().st_size)
        loop = box.attach()
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack", "--pretend"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0 and '"outcome":"pretended"' in done.stderr, done.stderr
        assert box.disk_bytes(0, len(before)) == before, "something was written"


def test_a_disk_that_takes_no_writes_any_more_brings_the_old_os_back(folder):
    """A memory file behind the disk, sealed when the old OS has gone: a worn card goes read-only like that."""
    memory = os.memfd_create("disk", os.MFD_ALLOW_SEALING)
    (folder / "disk.img").symlink_to(f"/proc/{os.getpid()}/fd/{memory}")
    with Sandbox(folder, files=files(pack(make_image(folder)))) as box:
        box.start(job(before=STUBBORN))
        box.wait_for("takeover is PID 1")
        before = box.disk_bytes(0, ROOT_START)
        add_seals, seal_write = 1033, 8
        fcntl.fcntl(memory, add_seals, seal_write)
        box.wait_exit()
        assert "it takes no writes; nothing was changed" in box.console(), box.console()
        assert '"outcome":"untouched"' in box.console(), box.console()
        assert box.disk_bytes(0, ROOT_START) == before
    os.close(memory)


def flushes(loop):
    """How often the disk was told to flush its cache: Documentation/block/stat.rst."""
    return int(pathlib.Path(f"/sys/block/{os.path.basename(loop)}/stat").read_text().split()[15])


def test_the_cache_of_the_disk_is_flushed_before_done_is_said(folder):
    """After the clearing, the flash, the head and the furnishing; unmounting FAT, unlike ext4, flushes nothing."""
    image = make_image(folder)
    with Sandbox(folder) as box:
        loop = box.attach()
        before = flushes(loop)
        done = subprocess.run([TAKEOVER, "flash", "-i", image, "-f", loop, "--no-ack"],
                              capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        assert flushes(loop) - before == 4, flushes(loop) - before


def test_what_an_earlier_run_has_furnished_is_no_damage_and_the_disk_does_not_boot_meanwhile(folder):
    image = make_image(folder)
    box_files = files(pack(image))
    # So many that the worker is at it for a while.
    for number in range(20):
        box_files[f"/tk/cable{number}"] = b"[connection]\nid=cable%d\ntype=ethernet\n" % number
    with Sandbox(folder, files=box_files) as box:
        box.start(job("".join(f" --nwmgr-cfg /tk/cable{number}" for number in range(20))))
        box.wait_for("is free", interval=0.0005)
        box.stop_worker_at("placed and read back")
        box.kill_worker()
        box.wait_for("(?s)run 2.*every process has ended", interval=0.001)
        box.stop_worker_at("chunk [0-9]+ was written again")
        assert box.disk_bytes(0, 512) == bytes(512), "a disk that is repaired has a partition table"
        os.kill(box.worker(), signal.SIGCONT)
        box.wait_exit()
        result = check_taken_over(box, image)
        assert result["attempts"] == 2 and result["repaired_chunks"] == 0, result
        assert "were furnished by an earlier run" in box.console(), box.console()
        assert "read back wrong" not in box.console(), box.console()


if __name__ == "__main__":
    runner.main(sys.modules[__name__], sys.argv[1:])
