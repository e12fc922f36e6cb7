-- The questions of docs/queries.md, which a test holds to be the same. `-- id: title`, then `-- chart: kind x y` where one helps.

-- cities: What is there, and since when?
-- chart: bar city_name places
SELECT city_name, count(*) AS places, min(as_of)::DATE AS first_seen, max(as_of)::DATE AS last_seen
FROM places GROUP BY city_name ORDER BY places DESC

-- weeks: How do people behave, week by week?
-- chart: line week interactions
SELECT date_trunc('week', "timestamp")::DATE AS week, count(*) AS interactions, count(DISTINCT user_id) AS users,
       round(avg(attended::INT), 3) AS attended, round(avg(implicit_rating), 2) AS rating
FROM interactions GROUP BY week ORDER BY week

-- returns: Where do people come back?
-- chart: bar name visits_each
SELECT p.name, p.city_name, count(*) AS visits, count(DISTINCT user_id) AS visitors,
       round(count(*) / count(DISTINCT user_id), 1) AS visits_each
FROM interactions JOIN places p USING (place_id) GROUP BY ALL HAVING visitors >= 5 ORDER BY visits_each DESC, p.name LIMIT 10

-- concentration: How much of all visits goes to the most popular tenth of places?
WITH counted AS (SELECT place_id, count(*) AS n FROM interactions GROUP BY place_id)
SELECT round(sum(n) FILTER (place <= 0.1) / sum(n), 3) AS share_of_the_top_tenth
FROM (SELECT n, percent_rank() OVER (ORDER BY n DESC) AS place FROM counted)

-- rejected: What was rejected, and why?
-- chart: bar reason rows
SELECT reason, count(*) AS rows, min("timestamp") AS first, max("timestamp") AS last
FROM quarantine_interactions GROUP BY reason ORDER BY rows DESC, reason

-- unreadable: Which of a source's own rows could not be read?
SELECT source, file, row, reason, content FROM quarantine_ingest ORDER BY source, file, row LIMIT 20

-- own_ids: Who is user 7 of our numbers, in the source's own words?
SELECT i.source, i.source_id, u.name, u.home_city_id, u.as_of FROM users u JOIN users_ids i ON i.id = u.user_id WHERE u.user_id = 7

-- known_of_7: What did the model know of somebody at a moment?
-- chart: line event_timestamp days_with_events_28d
SELECT event_timestamp, make_timestamp(state[2]::BIGINT) AS last_event, (len(state) - 3) // 9 AS days_with_events_28d,
       state[len(state) - 1] AS attended_on_the_last_of_them
FROM user_activity WHERE user_id = 7 AND event_timestamp <= TIMESTAMPTZ '2024-02-01 00:00:00+00' ORDER BY event_timestamp DESC LIMIT 5

-- leaks: Does any feature row use the future?
SELECT count(*) AS rows, count(*) FILTER (state[3] >= epoch_us(event_timestamp)) AS from_the_future FROM user_place

-- friends: Do friends go to the same places?
WITH visited AS (SELECT DISTINCT user_id, place_id FROM interactions),
pairs AS (
    SELECT user_u, user_v, count(b.place_id) AS common
    FROM user_user_edges JOIN visited a ON a.user_id = user_u LEFT JOIN visited b ON b.user_id = user_v AND b.place_id = a.place_id
    GROUP BY ALL
)
SELECT round(avg(common), 2) AS common_places, round(avg((common > 0)::INT), 3) AS share_with_any FROM pairs
