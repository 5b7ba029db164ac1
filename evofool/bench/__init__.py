"""The protocol that scores how well classifiers resist fooling: arms, transfer, detectors, statistics, report, gate."""
