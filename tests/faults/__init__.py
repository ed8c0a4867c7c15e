"""What happens when things go wrong, counted: power cuts, full disks, wrong files, races (``docs/reliability.md``)."""
