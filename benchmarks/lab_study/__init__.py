"""When does each sampling distribution win, by how much, and does α_KL do what §7.3 promises?

`python -m benchmarks.lab_study` (`make study`) measures families × distances × vocabularies × N × estimators and the
real rows with `geomix_core.lab`, case by case into results/lab_study.json; a run that is cut short goes on where it
stopped. Then it writes results/lab_study.md and two plots in docs/.
"""
