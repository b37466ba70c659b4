#!/usr/bin/perl
# Guards: each limit of what an operator may hold is met with its name and a typed refusal, concerns nobody else, and leaves nothing behind.
use strict;
use warnings;
use HyperTest;
use IO::Select ();
use ProxyTest;
use Test::More;
use Time::HiRes qw(time);

sub params { my ($from, $to) = @_; return { to => $to // 'hd-2', channel => 'grpc_server', _client => client($from) } }
sub ask { my ($p, $from, $to) = @_; return $p->ask(params => params($from, $to)) }
sub broker { my ($p, $from, $to) = @_; return $p->broker(params => params($from, $to)) }

# The request of `from` is refused by this limit; B hears nothing.
sub is_over {
	my ($p, $limit, $what, $from, $to) = @_;
	my $r = ask($p, $from, $to)->answer;
	my ($e, $whose) = ($r->{error}, $limit =~ /target/ ? $to // 'hd-2' : $from);
	is($e->{code}, -32002, "$what: -32002") or diag(json_text($r));
	is("$e->{data}{reason} $e->{data}{step}", 'quota issued', "$what: reason and step");
	ok($e->{data}{retry_after_ms} >= 1, "$what: when to come back");
	like($e->{message}, qr/^\Q$whose\E .*limit of \d+ .* at public-proxy-1\.ga: .*public\.$limit raised/, "$what: the message says whose limit it is and which setting");
	is($p->told(0.1), undef, "$what: B hears nothing of it");
	return;
}

# A connection that is closed instead of parked or paired; the worker's own line says why, since `refused` comes once a second.
sub is_turned_away {
	my ($p, $sock, $reason, $n, $what) = @_;
	isnt((read_to_end($sock))[1], 'timeout', "$what: closed");
	ok((wait_until { $p->{d}->count_log(qr/debug conn conn=\d+ WAITING>GONE session=\w+ why=$reason$/) == $n }), "$what: $reason");
	return;
}

# Ends it and compares the counts of its last line: nothing is held, and these many refusals.
sub totals_are {
	my ($p, $what, %want) = @_;
	is($p->{d}->stop, 0, "$what: it stops cleanly");
	my ($line) = $p->log_text =~ / info totals (.*)/;
	my %got = map { split /=/ } split / /, $line // '';
	# Who has been at his rate a moment ago is still known, without holding anything.
	is($got{$_}, 0, "$what: at the end, $_ = 0") for qw(tokens outstanding incoming parked pairs), $what =~ /rate/ ? () : 'operators';
	my %refused = map { /^refused_(.*)/ && $got{$_} ? ($1 => $got{$_}) : () } keys %got;
	is_deeply(\%refused, \%want, "$what: each refusal was counted") or diag($line);
	for my $limit (keys %want) {
		my $lines = $p->{d}->count_log(qr/ warn quota operator=\S+ limit=public\.$limit max=\d+ counts=/);
		ok($lines >= 1 && $lines <= $want{$limit}, "$what: $limit is in the log");
	}
	return;
}

# --- requests without an answer ---
my $p = proxy(workers => 1, token_timeout => 4, more => 'max_outstanding_per_operator = 3; max_outstanding_per_target = 4;');
close $_ for $p->pair;
$p->note_fds;
my $ok = { result => {} };
my @ends = (
	[ 'answered', sub { $_[0]->answer($ok) }, undef ],
	[ 'refused by B', sub { $_[0]->answer({ error => { code => -32006, message => 'no' } }) }, 'refused' ],
	[ 'parked and gone', sub { my $s = $p->come($_[0]->token); $p->wait_parked($_[0]{id}); close $s }, 'peer_gone' ],
	[ 'expired', sub { }, 'deadline' ],
	[ 'answered again', sub { $_[0]->answer($ok) }, undef ],
);
for my $end (@ends) {
	my ($how, $code, $reason) = @$end;
	my @asks = map { ask($p, 'hd-1') } 1 .. 3;
	my @tolds = map { $p->told } 1 .. 3;
	is_over($p, 'max_outstanding_per_operator', "$how: a fourth", 'hd-1');
	is_over($p, 'max_outstanding_per_operator', "$how: a fourth to somebody else", 'hd-1', 'hd-4');
	push @asks, ask($p, 'hd-3');
	push @tolds, $p->told;
	is_over($p, 'max_outstanding_per_target', "$how: a fifth to the same", 'hd-3');
	my ($token) = broker($p, 'hd-3', 'hd-4');
	is(length $token, 32, "$how: others reach each other");
	$code->($_) for @tolds;
	for my $r (map { $_->answer } @asks) {
		is($reason ? $r->{error}{data}{reason} : length $r->{result}{token}, $reason // 44, "$how: those before it have their end") or diag(json_text($r));
	}
}
$p->settled;
$p->fds_are_back('requests');
totals_are($p, 'requests', max_outstanding_per_operator => 2 * @ends, max_outstanding_per_target => 1 * @ends);

# --- tokens, parked connections ---
$p = proxy(workers => 1, token_timeout => 5, more => 'max_tokens_per_operator = 3; max_parked_per_operator = 2; max_parked = 3;');
close $_ for $p->pair;
$p->note_fds;
my ($closed, $busy, $refused) = (0, 0, 0);
for my $round (1, 2) {
	my @t = map { [ broker($p, 'hd-1') ] } 1 .. 3;
	is_over($p, 'max_tokens_per_operator', "round $round: a fourth token", 'hd-1');
	my @other = broker($p, 'hd-3');
	my @b = map { $p->come($t[$_][0]) } 0, 1;
	$p->wait_parked($t[$_][1]) for 0, 1;
	is_turned_away($p, $p->come($t[2][0]), 'quota', ++$closed, "round $round: a third to park");
	my $other = $p->come($other[0]);
	$p->wait_parked($other[1]);
	my @fourth = broker($p, 'hd-5');
	is_turned_away($p, $p->come($fourth[0]), 'busy', ++$busy, "round $round: a fourth of all");
	# a pair makes room for the token that was turned away, and for a new one
	my $a = $p->come($t[0][0]);
	$p->wait_pair($t[0][1]);
	joined($a, $b[0], "round $round: at the limit pairs are made");
	my $again = $p->come($t[2][0]);
	$p->wait_parked($t[2][1]);
	my @new = broker($p, 'hd-1');
	is_over($p, 'max_tokens_per_operator', "round $round: again a fourth", 'hd-1');
	# so does a peer that goes
	close $again;
	is($p->unpaired($t[2][1]), 'peer_gone', "round $round: one goes");
	broker($p, 'hd-1');
	is_over($p, 'max_tokens_per_operator', "round $round: once more", 'hd-1');
	$refused += 3;
	# and time
	close $_ for $a, $b[0];
	is($p->unpaired($_, 10), 'expired', "round $round: the rest expires") for $t[1][1], $new[1], $other[1], $fourth[1];
	$p->settled;
}
$p->fds_are_back('tokens');
totals_are($p, 'tokens', max_tokens_per_operator => $refused, max_parked_per_operator => $closed, max_parked => $busy);

# --- pairs ---
for my $case ([ 'max_pairs_per_operator', 'quota' ], [ 'max_pairs_total', 'busy' ]) {
	my ($limit, $reason) = @$case;
	$p = proxy(workers => 1, token_timeout => 60, more => "$limit = 2;");
	close $_ for $p->pair;
	$p->note_fds;
	my (@pairs, @sessions, $n);
	for my $end ('closed', 'worker killed', 'closed again') {
		while (@pairs < 2) {
			my ($a, $b, $session) = $p->pair;
			push @pairs, [ $a, $b ];
			push @sessions, $session;
		}
		my ($token, $session) = broker($p, 'hd-1');
		my $first = $p->come($token);
		$p->wait_parked($session);
		is_turned_away($p, $p->come($token), $reason, ++$n, "$limit, $end: the second party of a third");
		if ($reason eq 'quota') {
			my ($t3, $s3) = broker($p, 'hd-3');
			my $b3 = $p->come($t3);
			$p->wait_parked($s3);
			my $a3 = $p->come($t3);
			$p->wait_pair($s3);
			joined($a3, $b3, "$limit, $end: another operator's");
			close $_ for $a3, $b3;
		}
		joined(@{ $pairs[0] }, "$limit, $end: those that are there go on");
		if ($end =~ /killed/) {
			my $old = $p->worker_pid(0);
			kill 'KILL', $old;
			isnt($p->{d}->wait_log(qr/info resume pair=\d+ session=$_ /), undef, "$limit: it goes on") for @sessions[ -2, -1 ];
			wait_until { $p->worker_pid(0) != $old } 30;
			is_turned_away($p, $p->come($token), $reason, ++$n, "$limit, $end: and counts as before");
		}
		close $_ for @{ shift @pairs };
		isnt($p->wait_ended($sessions[-2]), undef, "$limit, $end: one has ended");
		my $second = $p->come($token);
		$p->wait_pair($session);
		joined($first, $second, "$limit, $end: the same token, once there is room");
		push @pairs, [ $first, $second ];
		push @sessions, $session;
	}
	close $_ for map { @$_ } @pairs;
	$p->settled;
	$p->fds_are_back($limit);
	totals_are($p, $limit, $limit => $n);
}

# --- rates: asked as fast as possible, so a slow machine may let some more through ---
for my $case ([ 'request_rate_per_operator', 'hd-1', 'hd-4', 'hd-3', 'hd-2' ], [ 'request_rate_per_target', 'hd-3', 'hd-2', 'hd-1', 'hd-4' ]) {
	my ($limit, $from2, $to2, $from3, $to3) = @$case;
	$p = proxy(workers => 1, more => "$limit = 4;");
	my ($n, $over) = (0, 0);
	for my $round (1, 2) {
		select undef, undef, undef, 1.1 if $round == 2; # lasts: a second of rest makes the rate whole again
		my ($began, $good, $r) = (time, 0);
		while ($good < 60) {
			my $ask = ask($p, 'hd-1');
			# B is asked, or A is refused
			my ($first) = IO::Select->new($p->{hyper}, $ask->{sock})->can_read(10 * slow_factor());
			$p->told->answer if $first && $first == $p->{hyper};
			$r = $ask->answer;
			last if !$r->{result};
			$good++;
		}
		my $most = 4 + 4 * (time - $began);
		cmp_ok($good, '>=', 4, "$limit: the burst passes");
		cmp_ok($good, '<=', $most, "$limit: and no more than the rate after it");
		is($r->{error}{code}, -32002, "$limit: -32002") or diag(json_text($r));
		like($r->{error}{message}, qr/limit of 4 requests a second .*public\.$limit raised/, "$limit: the message says which");
		my $retry = $r->{error}{data}{retry_after_ms};
		ok($retry >= 1 && $retry <= 250, "$limit: when to come back") or diag($retry);
		is(length((broker($p, $from3, $to3))[0]), 32, "$limit: others are not concerned");
		select undef, undef, undef, $retry / 1000 + 0.01; # lasts: what the answer said
		is(length((broker($p, 'hd-1'))[0]), 32, "$limit: it is right about when");
		$over++;
	}
	totals_are($p, $limit, $limit => $over);
}

# --- a stop with all that can be held ---
$p = proxy(workers => 1, more => 'max_tokens_per_operator = 1; max_pairs_per_operator = 1;');
my @pair = $p->pair;
my $ask = ask($p, 'hd-1');
my $told = $p->told;
is_over($p, 'max_tokens_per_operator', 'before the stop', 'hd-1');
my ($token, $session) = broker($p, 'hd-3');
my $parked = $p->come($token);
$p->wait_parked($session);
totals_are($p, 'a stop', max_tokens_per_operator => 1);
is($ask->answer->{error}{data}{reason}, 'stopped', 'a stop: who waits is told');

# --- no limits at all, and one that cannot be kept ---
$p = proxy(workers => 1, token_timeout => 60, more => join ' ', map { "$_ = 0;" } qw(max_tokens_per_operator max_outstanding_per_operator max_outstanding_per_target
	request_rate_per_operator request_rate_per_target max_parked max_parked_per_operator max_pairs_total max_pairs_per_operator));
my @asks = map { ask($p, 'hd-1') } 1 .. 300;
$p->told->answer for 1 .. 300;
is(scalar(grep { $_->answer->{result} } @asks), 300, 'all 0: 300 at once');
totals_are($p, 'all 0');

$p = proxy(workers => 1, start => 0, more => 'max_parked = 60000;');
my ($code, undef, $err) = run_program([ 'sh', '-c', 'ulimit -n 4000; exec "$@"', 'sh', program('proxy'), 'run', 'public' ],
	env => { PROXY_SETTINGS => $p->{dir} }, timeout => 20);
is($code, 78, 'more parked than there are descriptors: a start makes no sense') or diag($err);
like($err, qr/error descriptors limit=4000 needed=62\d+ why=".* \+ 60000 parked \+ .*public\.max_parked /, 'and the log has the sum');

hyper_done();
