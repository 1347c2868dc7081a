# What each dictionary costs the model. One job a site, then one table for all.


SITE_TABLES = [
    table(site.name)
    for site in SCALE.all_sites
    for table in (LAYOUT.site_evaluation, LAYOUT.site_evaluation_by_document)
]

job(
    "evaluate_{site}",
    "evaluate {wildcards.site}",
    message="Evaluating the dictionaries of {wildcards.site}",
    input=evaluated_site,
    output=[
        LAYOUT.site_evaluation("{site}"),
        LAYOUT.site_evaluation_by_document("{site}"),
    ],
)

job(
    "collect_tables",
    "collect-tables",
    message="Joining the tables of all sites",
    input=SITE_TABLES,
    output=[LAYOUT.evaluation, LAYOUT.evaluation_by_document],
)


rule evaluation:
    input:
        LAYOUT.evaluation,
        LAYOUT.evaluation_by_document,


GAPS = [LAYOUT.gap_by_tokens, LAYOUT.gap_by_tokens_fit, LAYOUT.why]

if SCALE.sweeps_data:
    job(
        "compare_gaps",
        "compare-gaps",
        message="Comparing gaps between kinds: by data, width and other controls",
        input=[LAYOUT.evaluation, LAYOUT.evaluation_by_document, LAYOUT.listed_claims],
        output=GAPS,
    )
