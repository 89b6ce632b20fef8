#!/bin/bash
# dracut's module "attestd": a volume whose key the TPM unseals before the machine's root is mounted.
#
# A kernel image that is measured cannot contain what is sealed to that measurement, so the sealed key stays outside of
# it: on the EFI system partition, in attestd/NAME.json, where it is as safe as anywhere, since only this TPM opens it.
# Called by dracut, whose functions and variables these are.
# shellcheck disable=SC2154

ATTESTD=/usr/lib/attestd
PYTHON=/usr/lib/python3.11
# What `attestd agent unseal` imports; the rest of the package is for the service and for what talks to it.
PARTS=(attestd tpm tpm2_pytss cffi _cffi_backend click cryptography)
WITHOUT=(test unittest lib2to3 idlelib ensurepip pydoc_data distutils tkinter venv xmlrpc dbm curses wsgiref)

check() {
    require_binaries /usr/bin/attestd /usr/bin/python3.11 || return 1
    return 255
}

depends() {
    echo systemd-initrd crypt
}

installkernel() {
    hostonly='' instmods dm_crypt vfat nls_ascii nls_cp437 =crypto
}

parts() {
    local part
    for part in "${PARTS[@]}"; do find "$ATTESTD"/lib/python3.11/site-packages/"$part"* -type f "$@"; done
}

install() {
    local part without=()
    for part in "${WITHOUT[@]}"; do without+=(-name "$part" -prune -o); done
    inst_multiple /usr/bin/attestd "$ATTESTD"/bin/python "$ATTESTD"/bin/attestd "$ATTESTD"/pyvenv.cfg \
        /usr/bin/python3.11 sh mkdir mv rm
    parts -print0 | xargs -0 "$DRACUT_INSTALL" ${initdir:+-D "$initdir"} -l
    find "$PYTHON" "${without[@]}" -type f -print0 | xargs -0 "$DRACUT_INSTALL" ${initdir:+-D "$initdir"} -l
    # What is no program is installed without the libraries that it loads.
    { parts -name '*.so' -print0; find "$PYTHON"/lib-dynload -name '*.so' -print0; } | xargs -0 ldd 2>/dev/null |
        sed -n 's,.*=> \(/[^ ]*\) .*,\1,p' | sort -u | xargs "$DRACUT_INSTALL" ${initdir:+-D "$initdir"} -l
    inst_libdir_file 'libtss2-tcti-device.so*'
    inst_rules 60-tpm-udev.rules
    inst_simple "$systemdsystemunitdir"/attestd-unseal@.service
    install_for_volumes
}

# The volumes are those of crypttab that are opened in an initrd.
install_for_volumes() {
    local name device key options system=$initdir/etc/systemd/system
    mkdir -p "$initdir"/etc/attestd "$initdir"/efi "$system"/attestd-unseal@.service.d
    ln -s /efi/attestd "$initdir"/etc/attestd/sealed
    printf '[Unit]\nWants=efi.mount\nAfter=efi.mount\n' >"$system"/attestd-unseal@.service.d/efi.conf
    # Gone before the real root comes, which mounts it as its own fstab says.
    printf '%s\n' '[Unit]' DefaultDependencies=no Conflicts=initrd-switch-root.target \
        Before=initrd-switch-root.target '[Mount]' Where=/efi Type=vfat Options=ro \
        "What=$(sed -n 's,^\(/dev/[^ ]*\) */efi .*,\1,p' /etc/fstab)" >"$system"/efi.mount
    while read -r name device key options; do
        case $options in *x-initrd.attach*) ;; *) continue ;; esac
        echo "$name $device $key $options" >>"$initdir"/etc/crypttab
        mkdir -p "$system/systemd-cryptsetup@$name.service.wants"
        ln -s "$systemdsystemunitdir/attestd-unseal@.service" \
            "$system/systemd-cryptsetup@$name.service.wants/attestd-unseal@$name.service"
    done </etc/crypttab
}
