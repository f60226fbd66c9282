"""static: the addresses, routes and DNS that the configuration or the runtime names. Nothing is kept of them."""

from __future__ import annotations

from ocirt_cni.addresses import Address, Prefix
from ocirt_cni.call import Call, field
from ocirt_cni.errors import CHECK_FAILED, INVALID_CONFIG, Error
from ocirt_cni.ipam import config
from ocirt_cni.results import IP, Result, parse_dns

FIELDS = ("addresses", "dns", "name", "routes", "type")
_OF_AN_ADDRESS = ("address", "gateway")


def add(call: Call) -> Result:
    """What is named. Raises Error(INVALID_CONFIG) if that is no address."""
    ipam = config.section(call)
    config.refuse_unknown(ipam, FIELDS, config.WHERE)
    ips = _ips(call)
    if not ips:
        hint = 'as in [{"address": "10.1.0.2/24"}], or let the runtime name one'
        raise Error(INVALID_CONFIG, "there is no address", subject=f"{config.WHERE}/addresses", hint=hint)
    return Result([], ips, config.routes(ipam), parse_dns(ipam, config.WHERE))


def configure(call: Call) -> None:
    """Read the configuration, for `check-config`. Raises Error."""
    config.routes(config.section(call))
    _ips(call)


def check(call: Call) -> None:
    """That the previous result has the addresses, with their gateways."""
    if call.previous is None:
        raise Error(INVALID_CONFIG, "it is missing", subject="/prevResult")
    made = {ip.address.address: ip.gateway for ip in call.previous.ips}
    for ip in _ips(call):
        address = ip.address.address
        if address not in made:
            raise Error(CHECK_FAILED, f"the result does not have {address}", subject=str(call.attachment))
        if ip.gateway is not None and made[address] != ip.gateway:
            raise Error(
                CHECK_FAILED, f"{address} has the gateway {made[address]}, not {ip.gateway}", subject=str(call.attachment)
            )


def _ips(call: Call) -> list[IP]:
    """The addresses: of the capability `ips`, else of `args.cni.ips`, else of the configuration and of IP in CNI_ARGS."""
    asked = config.of_capability(call) or config.of_args(call)
    if asked:
        found = [IP(config.prefix(*one)) for one in asked]
    else:
        found = _configured(call)
        found += [IP(config.prefix(*one)) for one in config.of_environment(call, "IP")]
        for gateway in [config.address(*one) for one in config.of_environment(call, "GATEWAY")]:
            _set_gateway(found, gateway)
    config.check_count(call, [ip.address.version for ip in found])
    _check_unique(found)
    return found


def _configured(call: Call) -> list[IP]:
    found = []
    for one, at in config.objects(config.section(call), "addresses", config.WHERE):
        config.refuse_unknown(one, _OF_AN_ADDRESS, at)
        prefix = config.prefix(field(one, "address", str, "", at), f"{at}/address")
        text = field(one, "gateway", str, "", at)
        found.append(IP(prefix, _gateway(text, prefix, f"{at}/gateway") if text else None))
    return found


def _gateway(text: str, prefix: Prefix, where: str) -> Address:
    found = config.address(text, where)
    if found.version != prefix.version:
        raise Error(INVALID_CONFIG, f"{found} is not of the IP version of {prefix}", subject=where)
    return found


def _set_gateway(ips: list[IP], gateway: Address) -> None:
    for ip in ips:
        if gateway in ip.address:
            ip.gateway = gateway


def _check_unique(ips: list[IP]) -> None:
    seen = set()
    for ip in ips:
        if ip.address.address in seen:
            raise Error(INVALID_CONFIG, f"{ip.address.address} is named twice", subject=f"{config.WHERE}/addresses")
        seen.add(ip.address.address)
