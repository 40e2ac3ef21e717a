"""The cost of a training: energy counters that begin anew, and machines that tell nothing."""

from pair_pkg.training.cost import EnergyMeter, peak_memory


def write(root, values, span=1_000_000_000):
    for number, value in enumerate(values):
        package = root / f"intel-rapl:{number}"
        package.mkdir(exist_ok=True)
        (package / "energy_uj").write_text(f"{value}\n")
        (package / "max_energy_range_uj").write_text(f"{span}\n")
    core = root / "intel-rapl:0:0"  # a part of package 0, which would be counted twice
    core.mkdir(exist_ok=True)
    (core / "energy_uj").write_text("5\n")


def test_energy_is_summed_over_packages_and_over_the_end_of_a_counter(tmp_path):
    write(tmp_path, [999_000_000, 500_000_000])
    meter = EnergyMeter(tmp_path)
    meter.on_train_begin(None, None, None)
    write(tmp_path, [1_000_000, 501_000_000])  # 2 J across the end of the first counter, and 1 J
    meter.on_step_end(None, None, None)
    assert meter.joules == 3.0
    write(tmp_path, [1_500_000, 501_000_000])
    meter.on_step_end(None, None, None)
    assert meter.joules == 3.5


def test_a_machine_that_tells_nothing_gives_no_number(tmp_path):
    meter = EnergyMeter(tmp_path / "absent")
    meter.on_train_begin(None, None, None)
    meter.on_step_end(None, None, None)
    assert meter.joules is None
    write(tmp_path, [5])
    meter = EnergyMeter(tmp_path)
    meter.on_train_begin(None, None, None)
    (tmp_path / "intel-rapl:0" / "energy_uj").unlink()
    meter.on_step_end(None, None, None)
    assert meter.joules is None


def test_peak_memory_is_at_least_what_the_interpreter_needs():
    assert peak_memory()["peak_memory_bytes"] > 50 * 2**20
