"""Links: traffic, faults, saturation over the negotiated speed; TCP's retransmissions."""

from __future__ import annotations

import pytest
from fakes import FakeClock
from fakes_probes import FIXTURES, measure, tree, values

from dvfd.errors import ProbeError
from dvfd.model import labels
from dvfd.probes.network import Network, segments

ETH0, ETH1 = labels(interface="eth0"), labels(interface="eth1")
IB = labels(interface="mlx5_0:1")


class Link:
    def __init__(self, root, **options):
        self.root, self.clock = root, FakeClock()
        self.probe = Network(clock=self.clock, proc=root / "proc", sys=root / "sys", **options)

    def put(self, path, value):
        (self.root / path).write_text(str(value))

    def after(self, seconds=5.0):
        self.clock.advance(seconds)
        return measure(self.probe)


@pytest.fixture
def nic(tmp_path):
    return Link(tree(tmp_path, "nic"))


def test_physical_ports_that_are_on_are_watched(nic):
    samples, error = nic.after()

    assert values(samples, "network_up") == {ETH0: 1.0}
    assert values(samples, "network_receive_bytes_total") == {ETH0: 1000}
    assert values(samples, "network_transmit_bytes_total") == {ETH0: 2000}
    assert error == ""


def test_errors_and_drops_are_sums(nic):
    samples, _ = nic.after()

    assert values(samples, "network_errors_total") == {ETH0: 5}
    assert values(samples, "network_drops_total") == {ETH0: 5}


def test_a_port_switched_off_later_is_down_and_not_forgotten(nic):
    nic.after()
    nic.put("sys/class/net/eth0/flags", "0x1002")

    assert values(nic.after()[0], "network_up") == {ETH0: 0.0}


def test_a_cable_pulled_is_down(nic):
    nic.put("sys/class/net/eth0/carrier", 0)

    assert values(nic.after()[0], "network_up") == {ETH0: 0.0}


def test_ports_of_the_profile_are_watched_even_when_off():
    link = Link(FIXTURES / "nic", interfaces=("eth1",))

    assert values(link.after()[0], "network_up") == {ETH1: 0.0}


def test_a_port_of_the_profile_that_is_not_there_is_an_error():
    samples, error = Link(FIXTURES / "nic", interfaces=("eth0", "ib9")).after()

    assert list(values(samples, "network_up")) == [ETH0]
    assert error.startswith("ib9 of the profile is not there")


def test_saturation_is_the_busier_direction_over_the_negotiated_speed(nic):
    assert values(nic.after()[0], "network_saturation_ratio") == {}
    nic.put("sys/class/net/eth0/statistics/rx_bytes", 1000 + 31_250_000_000)
    nic.put("sys/class/net/eth0/statistics/tx_bytes", 2000 + 5)

    samples, _ = nic.after()

    assert values(samples, "network_saturation_ratio") == {ETH0: pytest.approx(0.5)}


def test_an_unknown_speed_gives_no_saturation_and_the_reason(nic):
    nic.put("sys/class/net/eth0/speed", -1)
    nic.after()

    assert values(nic.after()[0], "network_saturation_ratio") == {}
    assert "eth0 does not say its link speed" in nic.probe.gaps["network_saturation_ratio"]


def test_a_driver_that_starts_counting_anew_gives_no_saturation_once(nic):
    nic.after()
    nic.put("sys/class/net/eth0/statistics/rx_bytes", 10)

    assert values(nic.after()[0], "network_saturation_ratio") == {}
    assert values(nic.after()[0], "network_saturation_ratio") == {ETH0: 0.0}


def test_a_node_without_physical_ports_watches_its_default_route():
    samples, error = Link(FIXTURES / "nic_virtual").after()

    assert list(values(samples, "network_up")) == [ETH0]
    assert error == ""


def test_no_port_at_all_is_an_error(tmp_path):
    root = tree(tmp_path, "nic_virtual")
    (root / "proc/net/route").unlink()

    samples, error = Link(root).after()

    assert values(samples, "network_up") == {}
    assert "name the links in profile.interfaces" in error


def test_one_unreadable_port_is_named_and_the_rest_read(tmp_path):
    root = tree(tmp_path, "infiniband")
    path = root / "sys/class/net/eth0/statistics/rx_bytes"
    path.unlink()

    samples, error = Link(root).after()

    assert list(values(samples, "network_up")) == [IB]
    assert error == f"{path}: no such file or directory"


def test_infiniband_data_is_counted_in_words_of_four_octets():
    samples, error = Link(FIXTURES / "infiniband").after()

    assert values(samples, "network_receive_bytes_total")[IB] == 1000
    assert values(samples, "network_transmit_bytes_total")[IB] == 2000
    assert error == ""


def test_infiniband_faults_leave_out_what_a_healthy_link_has():
    samples, _ = Link(FIXTURES / "infiniband").after()

    assert values(samples, "network_errors_total")[IB] == 3
    assert values(samples, "network_drops_total")[IB] == 6


def test_an_infiniband_port_without_a_cable_is_watched_by_name_only():
    second = labels(interface="mlx5_0:2")

    assert second not in values(Link(FIXTURES / "infiniband").after()[0], "network_up")
    link = Link(FIXTURES / "infiniband", interfaces=("mlx5_0",))
    assert values(link.after()[0], "network_up") == {IB: 1.0, second: 0.0}


def test_infiniband_saturation_is_over_the_ports_rate(tmp_path):
    link = Link(tree(tmp_path, "infiniband"))
    link.after()
    link.put("sys/class/infiniband/mlx5_0/ports/1/counters/port_xmit_data", 500 + 31_250_000_000)

    assert values(link.after()[0], "network_saturation_ratio")[IB] == pytest.approx(0.5)


def test_retransmissions_are_a_share_of_the_last_minute(nic):
    for step in range(14):
        tcp(nic, sent=100_000 + 500 * step, again=40 + step)
        samples, _ = nic.after()
        found = values(samples, "tcp_retransmit_ratio")
        assert bool(found) == (step >= 12)

    assert found[()] == pytest.approx(1 / 500)
    assert values(samples, "tcp_segments_sent_total") == {(): 106_500}


def test_too_few_segments_give_no_share(nic):
    for step in range(20):
        tcp(nic, sent=100_000 + 50 * step, again=40 + step)
        samples, _ = nic.after()

    assert values(samples, "tcp_retransmit_ratio") == {}


def test_a_minute_is_never_stretched_over_a_suspend(nic):
    tcp(nic, sent=100_000, again=40)
    nic.after()
    tcp(nic, sent=900_000, again=90)

    assert values(nic.after(3600)[0], "tcp_retransmit_ratio") == {}


def test_a_kernel_without_tcp_counters_is_an_error():
    with pytest.raises(ProbeError, match="OutSegs"):
        segments("Udp: 1\n", 0.0)


def tcp(link, *, sent, again):
    link.put("proc/net/snmp", f"Tcp: OutSegs RetransSegs\nTcp: {sent} {again}\n")
